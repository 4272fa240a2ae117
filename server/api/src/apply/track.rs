//! Tracks the managers of fields: computes `metadata.managedFields` after a write, and the object that results from applying a
//! configuration.
//!
//! Owns the two operations of field management: [`Writer::update`] for every write other than apply, and [`Writer::apply`]. The parts
//! (comparing, merging, pruning, encoding) are in the modules beside this one; reading and storing objects is left to the caller.
//!
//! Follows `Updater` of upstream's `structured-merge-diff/merge` and the managers in `apimachinery/pkg/util/managedfields/internal`:
//! system fields, `before-first-apply`, the limit on the number of updaters, and kubectl's last-applied annotation.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::check::check;
use super::compare::{Comparison, Side, compare};
use super::conflict::{ApplyError, Conflict};
use super::entries::{Entry, Managed, Operation, Owned, is_reset};
use super::fields::fields_of;
use super::last_applied;
use super::merge::merge;
use super::prune::prune;
use super::set::Set;
use super::settle::with_atomics;
use super::topology::Node;
use super::untracked::Untracked;
use super::versions::Versions;
use crate::meta;

const MANAGED_FIELDS: &str = "managedFields";
/// At the first apply to an object without managers, this manager becomes the owner of all fields that the object has.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager name of `kubectl apply --server-side`: kubectl's client-side apply keeps its configuration in an annotation.
const KUBECTL: &str = "kubectl";

/// The circumstances of one write: API version, subresource and time.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The versions of the resource.
    pub versions: &'a dyn Versions,
    /// The API version of the request's object.
    pub api_version: &'a str,
    /// The subresource that the request addresses; empty for the object itself.
    pub subresource: &'a str,
    /// The fields that writes of this subresource do not change: they get no manager by it.
    pub untracked: Untracked,
    /// The time of the write, in the format of `managedFields[].time`.
    pub time: &'a str,
}

/// The fields that never have a manager: they identify the object, or the server sets them. Upstream: `stripmeta.go`.
fn system_fields() -> &'static Set {
    static FIELDS: LazyLock<Set> = LazyLock::new(|| {
        Set::of_names(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", MANAGED_FIELDS],
            &["metadata", "resourceVersion"],
        ])
    });
    &FIELDS
}

fn list_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get(MANAGED_FIELDS).filter(|list| !list.is_null())
}

/// A copy of the object without `managedFields`.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    meta::remove(&mut object, MANAGED_FIELDS);
    object
}

// === impl Writer ===

impl Writer<'_> {
    /// Sets the `managedFields` of `new` after `manager` changed `live` into it by a write other than apply. `live` is None for a
    /// create. Both objects are in the writer's version.
    ///
    /// As upstream, a client may send `managedFields` that differ from the stored ones: a valid list replaces the stored managers, a
    /// reset (an empty list, or one empty entry) removes them, and an invalid list is ignored.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let sent = new.get_mut("metadata").and_then(Value::as_object_mut).and_then(|metadata| metadata.remove(MANAGED_FIELDS));
        if let Some(list) = self.updated(live, new, sent, manager) {
            meta::metadata_mut(new).insert(MANAGED_FIELDS.to_owned(), list);
        }
    }

    /// The new `managedFields` for [`update`](Self::update); None if the object has none.
    fn updated(&self, live: Option<&Value>, new: &Value, sent: Option<Value>, manager: &str) -> Option<Value> {
        let known = live.and_then(list_of);
        // A write of a subresource cannot set managers.
        let sent = sent.filter(|sent| self.subresource.is_empty() && Some(sent) != known);
        let (base, is_known) = match sent {
            Some(sent) if is_reset(&sent) => (Managed::default(), false),
            Some(sent) => match Managed::parse(&sent) {
                Ok(managed) if !managed.entries.is_empty() => (managed, false),
                _ => (Managed::default(), true),
            },
            None => (Managed::default(), true),
        };
        let node = self.versions.node(self.api_version)?;
        let comparison = self.compare(node, live, new);
        let mut managed = base;
        if is_known {
            if comparison.is_empty() {
                return known.cloned();
            }
            managed = known.and_then(|list| Managed::parse(list).ok()).unwrap_or_default();
        }
        // An existing object without managers (a client has reset them) is not tracked until the first apply.
        if managed.entries.is_empty() && live.is_some() {
            return None;
        }
        self.settle(&mut managed);
        let own = comparison.written().difference(system_fields());
        self.take(&mut managed, None, comparison, (live, new), true).ok()?;
        if !own.is_empty() {
            self.add(&mut managed, manager, own);
        }
        managed.cap();
        managed.to_value()
    }

    /// Adds `fields` to those that `manager` owns by updates, with the time of this write.
    fn add(&self, managed: &mut Managed, manager: &str, fields: Set) {
        let owned = managed.entries.entry(Entry::new(manager, Operation::Update, self.api_version, self.subresource)).or_default();
        owned.fields = owned.fields.union(&fields);
        self.api_version.clone_into(&mut owned.api_version);
        owned.time = Some(self.time.to_owned());
    }

    /// The object, with its `managedFields`, after `manager` applied the configuration `applied` to `live`. `live` is None if there
    /// is no object yet. Both are in the writer's version.
    ///
    /// # Errors
    /// Conflicts with other managers, unless `force` is set; a configuration that does not fit the schema or carries `managedFields`.
    pub fn apply(&self, live: Option<&Value>, applied: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
        let outcome = self.applied(live, applied, manager, force);
        if manager != KUBECTL {
            return outcome;
        }
        let mut object = match (outcome, live) {
            (Err(ApplyError::Conflicts(conflicts)), Some(live)) => self.despite_annotation(live, applied, conflicts)?,
            (outcome, _) => outcome?,
        };
        last_applied::refresh(&mut object, applied);
        Ok(object)
    }

    /// Applies kubectl's configuration despite conflicts on fields that the last-applied annotation has and that still have those
    /// values: kubectl's client-side apply set them, so it may change them, although another manager entry owns them. The other
    /// conflicts are returned.
    fn despite_annotation(&self, live: &Value, applied: &Value, conflicts: Vec<Conflict>) -> Result<Value, ApplyError> {
        let node = self.versions.node(self.api_version);
        let Some(allowed) = node.and_then(|node| last_applied::unchanged_fields(node, live, self.api_version)) else {
            return Err(ApplyError::Conflicts(conflicts));
        };
        let left: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect();
        if left.is_empty() { self.applied(Some(live), applied, KUBECTL, true) } else { Err(ApplyError::Conflicts(left)) }
    }

    /// Applies without regard to kubectl's annotation: checks the configuration, merges it, prunes what `manager` applied before and
    /// no longer does, and takes the changed fields from the other managers.
    fn applied(&self, live: Option<&Value>, applied: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
        if list_of(applied).is_some() {
            return Err(ApplyError::Refused("metadata.managedFields must be nil".to_owned()));
        }
        let node = self.versions.node(self.api_version).ok_or_else(|| unfit(applied, "no corresponding type"))?;
        check(node, applied).map_err(|why| unfit(applied, &why))?;
        let list = live.and_then(list_of).unwrap_or(&Value::Null);
        let mut managed = Managed::parse(list).map_err(|why| ApplyError::Unfit(format!("failed to decode managed fields: {why}")))?;
        let live = live.map(bare);
        if let (true, Some(live)) = (managed.entries.is_empty(), &live) {
            let fields = self.compare(node, None, live).written().difference(system_fields());
            if !fields.is_empty() {
                self.add(&mut managed, BEFORE_FIRST_APPLY, fields);
            }
        }
        self.settle(&mut managed);
        let empty = Value::Object(Map::new());
        let merged = merge(node, live.as_ref().unwrap_or(&empty), applied);
        let me = Entry::new(manager, Operation::Apply, self.api_version, self.subresource);
        let last = managed.entries.get(&me).cloned();
        let fields = self.untracked.filter(fields_of(node, applied));
        let time = last.as_ref().and_then(|last| last.time.clone());
        managed.entries.insert(me.clone(), Owned { fields, api_version: self.api_version.to_owned(), time });
        let merged = match last {
            Some(last) if !last.fields.is_empty() => {
                prune(self.versions, self.api_version, merged, &managed, &last).map_err(ApplyError::Unfit)?
            }
            _ => merged,
        };
        let comparison = self.compare(node, live.as_ref(), &merged);
        self.take(&mut managed, Some(&me), comparison, (live.as_ref(), &merged), force)?;
        let is_changed = live.as_ref() != Some(&merged);
        if let Some(owned) = managed.entries.get_mut(&me) {
            owned.fields = owned.fields.difference(system_fields());
            if is_changed || owned.time.is_none() {
                owned.time = Some(self.time.to_owned());
            }
        }
        managed.entries.retain(|_, owned| !owned.fields.is_empty());
        let mut object = merged;
        if let Some(list) = managed.to_value() {
            meta::metadata_mut(&mut object).insert(MANAGED_FIELDS.to_owned(), list);
        }
        Ok(object)
    }

    /// Compares two objects of one version, without the untracked fields. A missing `live` counts as an empty object.
    fn compare(&self, node: Node<'_>, live: Option<&Value>, new: &Value) -> Comparison {
        let comparison = compare(node, live.map_or(Side::Zero, Side::Is), Side::Is(new));
        comparison.filtered(|set| self.untracked.filter(set))
    }

    /// Adapts the field sets of all managers to the current schemas: fields below a list or map that has become atomic are replaced
    /// by the list or map itself. Managers of versions that no longer exist are removed.
    fn settle(&self, managed: &mut Managed) {
        managed.entries.retain(|_, owned| {
            let Some(node) = self.versions.node(&owned.api_version) else { return false };
            if let Some(settled) = with_atomics(&owned.fields, node) {
                owned.fields = settled;
            }
            true
        });
    }

    /// Removes the fields that the write changed or removed from all managers but `me`. `comparison` compares `live` and `new` in the
    /// writer's version; managers of another version are compared in theirs.
    ///
    /// # Errors
    /// Without `force`: conflicts, if another manager owns a field that the write changed; an object that cannot be converted to the
    /// version of a manager.
    fn take(
        &self,
        managed: &mut Managed,
        me: Option<&Entry>,
        comparison: Comparison,
        (live, new): (Option<&Value>, &Value),
        force: bool,
    ) -> Result<(), ApplyError> {
        let mut by_version: BTreeMap<String, (Set, Set)> = BTreeMap::new();
        by_version.insert(self.api_version.to_owned(), (comparison.written(), comparison.removed));
        let mut conflicts = Vec::new();
        for (entry, owned) in managed.entries.iter().filter(|(entry, _)| Some(*entry) != me) {
            if !by_version.contains_key(&owned.api_version) {
                let (written, removed) = match self.compare_in(&owned.api_version, live, new) {
                    Ok(comparison) => (comparison.written(), comparison.removed),
                    // The object cannot be converted to this version: its managers keep their fields.
                    Err(_) if force => (Set::default(), Set::default()),
                    Err(why) => return Err(ApplyError::Unfit(format!("failed to convert object: {why}"))),
                };
                by_version.insert(owned.api_version.clone(), (written, removed));
            }
            if let (false, Some((written, _))) = (force, by_version.get(&owned.api_version)) {
                conflicts.extend(Conflict::all(entry, &owned.api_version, &owned.fields.intersection(written)));
            }
        }
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        for (_, owned) in managed.entries.iter_mut().filter(|(entry, _)| Some(*entry) != me) {
            if let Some((written, removed)) = by_version.get(&owned.api_version) {
                owned.fields = owned.fields.difference(written).difference(removed);
            }
        }
        managed.entries.retain(|entry, owned| Some(entry) == me || !owned.fields.is_empty());
        Ok(())
    }

    /// Compares the two objects after their conversion to `api_version`. A version without a schema yields no differences.
    fn compare_in(&self, api_version: &str, live: Option<&Value>, new: &Value) -> Result<Comparison, String> {
        let Some(node) = self.versions.node(api_version) else { return Ok(Comparison::default()) };
        let live = live.map(|live| self.versions.convert(live, api_version)).transpose()?;
        let new = self.versions.convert(new, api_version)?;
        Ok(self.compare(node, live.as_deref(), &new))
    }
}

fn unfit(applied: &Value, why: &str) -> ApplyError {
    let kind = meta::gvk(applied).map(|gvk| gvk.to_string()).unwrap_or_default();
    ApplyError::Unfit(format!("failed to create typed patch object ({}/{}; {kind}): {why}", meta::namespace(applied), meta::name(applied)))
}
