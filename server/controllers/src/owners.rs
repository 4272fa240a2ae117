//! Owner references: who controls an object, and which objects a controller may claim.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use trireme_client::{Object, ResourceType, Typed, labels};

/// The reference that names the managing controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The reference by which an object is controlled by `owner`.
pub(crate) fn controller_reference<T: Typed>(owner: &T) -> OwnerReference {
    let resource = ResourceType::of::<T>();
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.into_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Which objects a controller has, gains and gives up.
#[derive(Debug)]
pub(crate) struct Claim<C> {
    pub(crate) owned: Vec<Arc<C>>,
    pub(crate) adopt: Vec<Arc<C>>,
    pub(crate) release: Vec<Arc<C>>,
}

/// Sorts candidates of the owner's namespace: those it controls and selects are owned, those that nobody controls and it
/// selects are to adopt, those it controls and no longer selects are to release. An owner that is being deleted only
/// keeps what it has.
pub(crate) fn claim<C: Object>(owner: &ObjectMeta, selector: &LabelSelector, candidates: Vec<Arc<C>>) -> Claim<C> {
    let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let deleting = owner.deletion_timestamp.is_some();
    for candidate in candidates {
        let meta = candidate.meta();
        let selected = labels::matches(selector, meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if Some(&controller.uid) == owner.uid.as_ref() => {
                if selected {
                    claim.owned.push(candidate);
                } else if !deleting {
                    claim.release.push(candidate);
                }
            }
            None if selected && !deleting && meta.deletion_timestamp.is_none() => claim.adopt.push(candidate),
            _ => {}
        }
    }
    claim
}

/// A strategic merge patch that adds the owner; the uid makes sure that it is still the same object.
pub(crate) fn adopt_patch(owner: &OwnerReference, uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [owner], "uid": uid}})
}

/// A strategic merge patch that takes the owner away.
pub(crate) fn release_patch(owner_uid: &str, uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid}})
}
