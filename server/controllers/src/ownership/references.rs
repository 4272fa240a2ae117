//! Owner references, and the index by which dependents are found.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use trireme_client::{Index, Informer, Object, ObjectKey, ResourceType, Typed};

/// The reference that names the managing controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` is the managing controller, and lives where it must: in the same namespace.
pub(crate) fn is_controlled_by<T: Object>(meta: &ObjectMeta, owner: &T) -> bool {
    meta.namespace.as_deref().unwrap_or_default() == owner.namespace()
        && controller_of(meta).is_some_and(|reference| reference.uid == owner.uid())
}

/// The key of the managing controller, if it is of this type.
pub(crate) fn controller_key<O: Typed>(meta: &ObjectMeta) -> Option<ObjectKey> {
    let resource = O::resource_type();
    let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    controller_of(meta)
        .filter(|owner| owner.kind == resource.kind && group(&owner.api_version) == resource.group)
        .map(|owner| ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), &owner.name))
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

/// A strategic merge patch that adds the owner; the uid makes sure that it is still the same object.
pub(super) fn adopt_patch(owner: &OwnerReference, uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [owner], "uid": uid}})
}

/// A strategic merge patch that takes the owner away.
pub(super) fn release_patch(owner_uid: &str, uid: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid}})
}

/// Objects by their managing controller: its namespace, kind, name and uid. Objects without one are found by their namespace.
pub(crate) struct ByController<C>(Index<C>);

impl<C> Clone for ByController<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Object> ByController<C> {
    pub(crate) fn of(informer: &Arc<Informer<C>>) -> Self {
        Self(informer.index("controller", |object: &C| {
            let namespace = object.namespace();
            vec![match controller_of(object.meta()) {
                Some(owner) => format!("{namespace}/{}/{}/{}", owner.kind, owner.name, owner.uid),
                None => namespace.to_owned(),
            }]
        }))
    }

    /// What `owner` controls.
    pub(crate) fn owned<O: Typed>(&self, owner: &O) -> Vec<Arc<C>> {
        self.0.get(&format!("{}/{}/{}/{}", owner.namespace(), O::resource_type().kind, owner.name(), owner.uid()))
    }

    /// What the controller that a reference in this namespace names controls.
    pub(crate) fn owned_by_reference(&self, namespace: &str, owner: &OwnerReference) -> Vec<Arc<C>> {
        self.0.get(&format!("{namespace}/{}/{}/{}", owner.kind, owner.name, owner.uid))
    }

    /// The objects of a namespace that have no controller.
    pub(crate) fn orphans(&self, namespace: &str) -> Vec<Arc<C>> {
        self.0.get(namespace)
    }
}
