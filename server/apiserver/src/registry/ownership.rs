//! Field management: the managers that every write records, and server-side apply.
//!
//! Owns how a mutation and its resource become a [`Writer`]; the rules are in [`trireme_api::apply`]. Managers are recorded before
//! admission: fields that admission changes get no manager.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;
use trireme_api::apply::{self, Node, Untracked, Versions, Writer};
use trireme_api::gvk::{GroupVersion, GroupVersionKind};
use trireme_api::status::Status;
use trireme_api::{meta, time};

use crate::catalog::rows::Row;
use crate::error::Answer;
use crate::registry::managers::{put_managers, take_managers};
use crate::registry::mutation::Mutation;

/// The versions of the resource behind a row.
struct RowVersions<'a>(&'a Row);

impl Versions for RowVersions<'_> {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        let row = self.0;
        let version = GroupVersion::parse(api_version)?;
        if row.origin.is_some() && (version.group != row.group() || !row.resource.serves(&version.version)) {
            return None;
        }
        let definition = row.definition.in_version(&version.version).unwrap_or(&row.definition);
        definition.schema.node(&version.with_kind(row.resource.kind.clone()))
    }

    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Result<Cow<'v, Value>, String> {
        if meta::api_version(object) == api_version {
            return Ok(Cow::Borrowed(object));
        }
        let from = meta::gvk(object).ok_or("an object has no version")?;
        let to = GroupVersion::parse(api_version).ok_or_else(|| format!("unexpected GroupVersion string: {api_version}"))?;
        self.0.definition.convert(object.clone(), &from, &to.with_kind(from.kind.clone())).map(Cow::Owned)
    }
}

/// A kind that has one version, such as Scale.
struct OneVersion {
    kind: GroupVersionKind,
}

impl Versions for OneVersion {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        (self.kind.api_version() == api_version).then(|| Node::of_kind(&self.kind.group, &self.kind.version, &self.kind.kind)).flatten()
    }

    fn convert<'v>(&self, object: &'v Value, _api_version: &str) -> Result<Cow<'v, Value>, String> {
        Ok(Cow::Borrowed(object))
    }
}

/// A change of a Scale.
pub enum ScaleChange<'a> {
    /// The Scale as it is to be.
    Update(Value),
    /// A configuration of it.
    Apply {
        /// The configuration.
        configuration: &'a Value,
        /// Whether it takes fields from other managers.
        force: bool,
    },
}

impl Mutation<'_> {
    /// Records the writer as manager of the fields that differ between `existing` (None for a create) and `object`. Both are in the
    /// storage version.
    pub fn track(&self, existing: Option<&Value>, object: &mut Value) -> Answer<()> {
        let (gvk, working) = (self.gvk(), self.working_gvk());
        let (versions, time) = (RowVersions(self.row), time::format(Timestamp::now()));
        let api_version = gvk.api_version();
        let writer = self.writer(&versions, &api_version, &time);
        if gvk == working {
            writer.update(existing, object, &self.manager);
            return Ok(());
        }
        let mut shown = self.show(object.clone())?;
        let before = existing.map(|existing| self.show(existing.clone())).transpose()?;
        writer.update(before.as_ref(), &mut shown, &self.manager);
        put_managers(object, take_managers(&mut shown));
        Ok(())
    }

    fn writer<'w>(&'w self, versions: &'w dyn Versions, api_version: &'w str, time: &'w str) -> Writer<'w> {
        Writer { versions, api_version, subresource: self.subresource, untracked: self.definition().kind.untracked(self.subresource), time }
    }

    /// Applies a configuration to `existing` (None if there is no object of this name). The result is in the storage version, with its
    /// managers.
    pub fn apply(&mut self, existing: Option<&Value>, configuration: &Value, force: bool) -> Answer<Value> {
        let gvk = self.gvk();
        refuse_other_kind(configuration, &gvk)?;
        let live = existing.map(|existing| self.show(existing.clone())).transpose()?;
        let (versions, time, api_version) = (RowVersions(self.row), time::format(Timestamp::now()), gvk.api_version());
        let applied = self.writer(&versions, &api_version, &time).apply(live.as_ref(), configuration, &self.manager, force);
        let applied = applied.map_err(|error| error.to_status())?;
        let place = format!("{}/{}; {gvk}", meta::namespace(&applied), meta::name(&applied));
        let unfit = |why| Status::failure(500, "", format!("failed to convert new object ({place}) to proper version: {why}"));
        let object = self.view.definition.schema.conform(applied, &gvk).map_err(unfit)?;
        self.is_tracked = true;
        self.to_storage(object)
    }

    /// Changes the Scale `live` of `existing`, and gives the Scale and the managers that `existing` has then. `gvk` is that of Scales.
    pub fn change_scale(
        &mut self,
        gvk: &GroupVersionKind,
        existing: &Value,
        mut live: Value,
        change: ScaleChange<'_>,
    ) -> Answer<(Value, Option<Value>)> {
        let (versions, time, scale_version) = (OneVersion { kind: gvk.clone() }, time::format(Timestamp::now()), gvk.api_version());
        let none = Value::Null;
        let managers = existing.pointer("/metadata/managedFields").unwrap_or(&none);
        let path = |api_version: &str| self.replicas_path(api_version);
        let unreadable = |why: String| Status::internal(format!("failed to decode managed fields: {why}"));
        put_managers(&mut live, apply::to_scale(managers, &path).map_err(unreadable)?);
        let writer = Writer { untracked: Untracked::NONE, ..self.writer(&versions, &scale_version, &time) };
        let mut scale = match change {
            ScaleChange::Update(mut scale) => {
                writer.update(Some(&live), &mut scale, &self.manager);
                scale
            }
            ScaleChange::Apply { configuration, force } => {
                refuse_other_kind(configuration, gvk)?;
                writer.apply(Some(&live), configuration, &self.manager, force).map_err(|error| error.to_status())?
            }
        };
        let of_scale = take_managers(&mut scale).unwrap_or_default();
        let managers = apply::from_scale(managers, &of_scale, &self.gvk().api_version(), &path).map_err(unreadable)?;
        self.is_tracked = true;
        Ok((scale, managers))
    }

    fn replicas_path(&self, api_version: &str) -> Option<Vec<apply::PathElement>> {
        let version = GroupVersion::parse(api_version).filter(|version| version.group == self.view.resource.group)?;
        let definition = self.row.definition.in_version(&version.version).unwrap_or(&self.row.definition);
        let path = definition.kind.replicas_path()?;
        Some(path.iter().map(|name| apply::PathElement::field(name)).collect())
    }
}

fn refuse_other_kind(configuration: &Value, gvk: &GroupVersionKind) -> Answer<()> {
    match meta::gvk(configuration) {
        Some(given) if given == *gvk => Ok(()),
        Some(given) => Err(Status::bad_request(format!("invalid object type: {given}")).into()),
        None => Err(Status::bad_request(format!("invalid object type: {}", meta::api_version(configuration))).into()),
    }
}
