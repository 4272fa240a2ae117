//! Who manages what after a write, and what an applied configuration makes of an object.

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
/// Who manages what an object has that nobody managed before the first configuration was applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose configurations kubectl also keeps in an annotation.
const KUBECTL: &str = "kubectl";

/// One write: in which version, through which path, when.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The versions of the resource.
    pub versions: &'a dyn Versions,
    /// The version in which it is written.
    pub api_version: &'a str,
    /// The subresource through which it is written, or empty.
    pub subresource: &'a str,
    /// The fields that are not written this way.
    pub untracked: Untracked,
    /// The time, as it is written into objects.
    pub time: &'a str,
}

/// The fields that nobody manages.
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

/// An object without its managers.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    meta::remove(&mut object, MANAGED_FIELDS);
    object
}

// === impl Writer ===

impl Writer<'_> {
    /// Writes into `new` who manages what, after `manager` made it of `live` (None: it is new) other than by applying. Both are in
    /// the writer's version; the managers that a client sent with `new` count as upstream has it.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let sent = new.get_mut("metadata").and_then(Value::as_object_mut).and_then(|metadata| metadata.remove(MANAGED_FIELDS));
        if let Some(list) = self.updated(live, new, sent, manager) {
            meta::metadata_mut(new).insert(MANAGED_FIELDS.to_owned(), list);
        }
    }

    fn updated(&self, live: Option<&Value>, new: &Value, sent: Option<Value>, manager: &str) -> Option<Value> {
        let known = live.and_then(list_of);
        // Through a subresource, managers cannot be set.
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
        // An object whose managers were cleared is not tracked until something is applied to it.
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

    /// Makes `manager` of updates manage more fields, as of now.
    fn add(&self, managed: &mut Managed, manager: &str, fields: Set) {
        let owned = managed.entries.entry(Entry::new(manager, Operation::Update, self.api_version, self.subresource)).or_default();
        owned.fields = owned.fields.union(&fields);
        self.api_version.clone_into(&mut owned.api_version);
        owned.time = Some(self.time.to_owned());
    }

    /// What `live` (None: there is no object yet) becomes when `manager` applies a configuration to it, with its managers. Both are
    /// in the writer's version.
    ///
    /// # Errors
    /// Conflicts, unless `force` is set, and what cannot be applied.
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

    /// What kubectl applied in the client before it may change, whoever manages it by that.
    fn despite_annotation(&self, live: &Value, applied: &Value, conflicts: Vec<Conflict>) -> Result<Value, ApplyError> {
        let node = self.versions.node(self.api_version);
        let Some(allowed) = node.and_then(|node| last_applied::unchanged_fields(node, live, self.api_version)) else {
            return Err(ApplyError::Conflicts(conflicts));
        };
        let left: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect();
        if left.is_empty() { self.applied(Some(live), applied, KUBECTL, true) } else { Err(ApplyError::Conflicts(left)) }
    }

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

    fn compare(&self, node: Node<'_>, live: Option<&Value>, new: &Value) -> Comparison {
        let comparison = compare(node, live.map_or(Side::Zero, Side::Is), Side::Is(new));
        comparison.filtered(|set| self.untracked.filter(set))
    }

    /// Brings the sets of all managers up to the schemas of their versions; those of versions that are gone go too.
    fn settle(&self, managed: &mut Managed) {
        managed.entries.retain(|_, owned| {
            let Some(node) = self.versions.node(&owned.api_version) else { return false };
            if let Some(settled) = with_atomics(&owned.fields, node) {
                owned.fields = settled;
            }
            true
        });
    }

    /// Takes what was written or removed from all managers but `me`. `comparison` is that of the writer's version.
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
                    // The managers of a version that objects cannot be converted to keep what they have.
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
