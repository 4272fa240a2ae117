//! The managers of the replicas field, converted between an object and its Scale.

use serde_json::Value;

use super::element::PathElement;
use super::entries::{Entry, Managed, Operation, Owned};
use super::set::Set;

/// The version of a Scale.
const SCALE: &str = "autoscaling/v1";

/// Where the replicas stand in a version of an object; None: the version has no scale.
pub type ReplicasPath<'a> = &'a dyn Fn(&str) -> Option<Vec<PathElement>>;

fn in_scale() -> Set {
    Set::of_names(&[&["spec", "replicas"]])
}

/// The same manager in another version.
fn moved(entry: &Entry, api_version: &str) -> Entry {
    Entry::new(&entry.manager, entry.operation, api_version, &entry.subresource)
}

/// The managers of a Scale: those of its object that manage the replicas.
///
/// # Errors
/// The object's managers cannot be read.
pub fn to_scale(list: &Value, path: ReplicasPath<'_>) -> Result<Option<Value>, String> {
    let mut scale = Managed::default();
    for (entry, owned) in Managed::parse(list)?.entries {
        if path(&owned.api_version).is_some_and(|path| owned.fields.contains(&path)) {
            let fields = Owned { fields: in_scale(), api_version: SCALE.to_owned(), time: owned.time };
            scale.entries.insert(moved(&entry, SCALE), fields);
        }
    }
    Ok(scale.to_value())
}

/// The managers of an object after its Scale was written in the object's version `api_version`, and has the managers `scale`.
///
/// # Errors
/// One of the lists cannot be read.
pub fn from_scale(list: &Value, scale: &Value, api_version: &str, path: ReplicasPath<'_>) -> Result<Option<Value>, String> {
    let (mut managed, mut scale) = (Managed::parse(list)?, Managed::parse(scale)?);
    for (entry, owned) in &mut managed.entries {
        let Some(path) = path(&owned.api_version).filter(|path| owned.fields.contains(path)) else { continue };
        // Who no longer manages the replicas of the Scale does not manage those of the object.
        if scale.entries.remove(&moved(entry, SCALE)).is_none() {
            let mut replicas = Set::default();
            replicas.insert(&path);
            owned.fields = owned.fields.difference(&replicas);
        }
    }
    managed.entries.retain(|_, owned| !owned.fields.is_empty());
    let Some(path) = path(api_version) else { return Ok(managed.to_value()) };
    for (entry, of_scale) in scale.entries.iter().filter(|(_, of_scale)| !of_scale.fields.intersection(&in_scale()).is_empty()) {
        let owned = managed.entries.entry(moved(entry, api_version)).or_default();
        owned.fields.insert(&path);
        api_version.clone_into(&mut owned.api_version);
        owned.time.clone_from(&of_scale.time);
    }
    if scale.entries.keys().any(|entry| entry.operation == Operation::Update) {
        managed.cap();
    }
    Ok(managed.to_value())
}
