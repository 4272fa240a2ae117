//! Removes the fields that a manager applied before and no longer applies. Upstream: `prune` in `structured-merge-diff/merge/update.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entries::{Managed, Owned};
use super::fields::fields_of;
use super::remove::remove;
use super::set::Set;
use super::settle::with_named_fields;
use super::topology::Node;
use super::versions::Versions;

/// Removes the fields in `last` from `merged`, unless another manager or the manager's new configuration has them too. `managed` already
/// holds the new configuration; the result is in the version `api_version`, as `merged` is.
///
/// # Errors
/// A conversion between versions failed.
pub fn prune(versions: &dyn Versions, api_version: &str, merged: Value, managed: &Managed, last: &Owned) -> Result<Value, String> {
    let Some(node) = versions.node(&last.api_version) else { return Ok(merged) };
    let before = versions.convert(&merged, &last.api_version)?.into_owned();
    let named = with_named_fields(&last.fields, Some(node));
    let pruned = remove(node, &before, &named);
    let pruned = with_owned(versions, &last.api_version, &before, pruned, managed)?;
    // A field that had no manager before stays: the manager removes only fields that it owned.
    let pruned = versions.convert(&pruned, &last.api_version)?;
    let gone = named_fields(node, &before).difference(&named_fields(node, &pruned)).intersection(&named);
    Ok(versions.convert(&remove(node, &before, &gone), api_version)?.into_owned())
}

fn named_fields(node: Node<'_>, object: &Value) -> Set {
    with_named_fields(&fields_of(node, object), Some(node))
}

/// Adds back to `pruned` the fields that any manager owns. The result may be in any of the versions.
fn with_owned(versions: &dyn Versions, first: &str, before: &Value, pruned: Value, managed: &Managed) -> Result<Value, String> {
    let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
    for entry in managed.entries.values() {
        let fields = owned.entry(&entry.api_version).or_default();
        *fields = fields.union(&entry.fields);
    }
    let mut pruned = pruned;
    // The version in which fields were pruned comes first: a conversion may need some that are put back.
    let order = owned.keys().copied().filter(|version| *version == first).chain(owned.keys().copied().filter(|version| *version != first));
    for version in order.collect::<Vec<_>>() {
        let (Some(node), Some(fields)) = (versions.node(version), owned.get(version)) else { continue };
        let merged = versions.convert(before, version)?;
        let left = named_fields(node, &*versions.convert(&pruned, version)?);
        let kept = left.union(&with_named_fields(fields, Some(node)));
        pruned = remove(node, &merged, &named_fields(node, &merged).difference(&kept));
    }
    Ok(pruned)
}
