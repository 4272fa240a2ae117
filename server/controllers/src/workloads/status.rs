//! Writing the status of an object.

use serde::Serialize;
use serde_json::{Value, json};
use trireme_client::{Object, Patch};

use crate::Error;

/// The merge patch that turns one status into another of the same object and revision: what the new one lacks is removed.
pub(crate) fn status_patch<T: Object, S: Serialize>(object: &T, old: &S, new: &S) -> Result<Patch, Error> {
    patch_under(json!({"uid": object.uid(), "resourceVersion": object.meta().resource_version}), old, new)
}

/// The same for the object of this uid, whatever its revision: for a status that names the generation it speaks for.
pub(crate) fn status_patch_any_revision<T: Object, S: Serialize>(object: &T, old: &S, new: &S) -> Result<Patch, Error> {
    patch_under(json!({"uid": object.uid()}), old, new)
}

fn patch_under<S: Serialize>(meta: Value, old: &S, new: &S) -> Result<Patch, Error> {
    let encode = |status: &S| serde_json::to_value(status).map_err(|error| Error::Invalid(error.to_string()));
    let (old, mut status) = (encode(old)?, encode(new)?);
    remove_missing(&old, &mut status);
    Ok(Patch::Merge(json!({"metadata": meta, "status": status})))
}

/// Sets to null what `old` has and `new` lacks, in maps at every level.
fn remove_missing(old: &Value, new: &mut Value) {
    let (Some(old), Some(fields)) = (old.as_object(), new.as_object_mut()) else { return };
    for (key, before) in old {
        match fields.get_mut(key) {
            Some(after) => remove_missing(before, after),
            None => {
                fields.insert(key.clone(), Value::Null);
            }
        }
    }
}
