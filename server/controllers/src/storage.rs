//! Claims and volumes.

pub(crate) mod attach_detach;
pub(crate) mod ephemeral;
pub(crate) mod expansion;
pub(crate) mod local_provisioner;
pub(crate) mod protection;
pub(crate) mod volume_binder;

use serde_json::{Value, json};
use trireme_client::{Object, Patch};

/// The patch, for the object as it was read and no other.
fn guarded(object: &impl Object, mut patch: Value) -> Patch {
    patch["metadata"]["uid"] = json!(object.uid());
    patch["metadata"]["resourceVersion"] = json!(object.meta().resource_version);
    Patch::Merge(patch)
}
