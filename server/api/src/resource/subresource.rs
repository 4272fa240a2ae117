//! Restores the stored parts of an object that a write of one subresource must not change.

use serde_json::Value;

use crate::meta;

/// The fields of `metadata` that upstream's `ResetObjectMetaForStatus` puts back.
const OWN_METADATA: [&str; 5] = ["labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"];

/// Removes a top-level field.
pub(crate) fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

/// Restores a top-level field from the stored object.
pub(crate) fn carry(object: &mut Value, old: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => map.insert(key.to_owned(), value.clone()),
        None => map.remove(key),
    };
}

/// Puts back a field of the stored metadata.
pub(crate) fn carry_metadata(object: &mut Value, old: &Value, key: &str) {
    match old.get("metadata").and_then(|metadata| metadata.get(key)) {
        Some(value) => {
            meta::metadata_mut(object).insert(key.to_owned(), value.clone());
        }
        None => meta::remove(object, key),
    }
}

/// Puts back all metadata that a client may otherwise change.
pub(crate) fn carry_own_metadata(object: &mut Value, old: &Value) {
    OWN_METADATA.iter().for_each(|key| carry_metadata(object, old, key));
}
