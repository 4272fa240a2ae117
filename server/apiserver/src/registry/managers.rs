//! Access to `metadata.managedFields` of an object.

use serde_json::Value;
use trireme_api::apply::{Managed, differ_in_times_alone};
use trireme_api::meta;

/// Takes the managers out of an object.
pub fn take_managers(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Puts managers into an object.
pub fn put_managers(object: &mut Value, managers: Option<Value>) {
    match managers {
        Some(managers) => {
            meta::metadata_mut(object).insert("managedFields".to_owned(), managers);
        }
        None => meta::remove(object, "managedFields"),
    }
}

/// Why managers that admission left behind cannot be read.
pub fn unreadable(object: &Value) -> Option<String> {
    let managers = object.pointer("/metadata/managedFields").filter(|managers| !managers.is_null())?;
    Managed::parse(managers).err()
}

/// Takes the times of `existing` over where nothing but times differs: they alone are no reason to write.
pub fn keep_times(object: &mut Value, existing: &Value) {
    let (Some(old), Some(new)) = (existing.pointer("/metadata/managedFields"), object.pointer("/metadata/managedFields")) else { return };
    if !differ_in_times_alone(old, new) {
        return;
    }
    let new = new.clone();
    put_managers(object, Some(old.clone()));
    if object != existing {
        put_managers(object, Some(new));
    }
}
