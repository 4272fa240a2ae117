//! The dependents of one kind of owner.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, Typed};

use super::claim::claim;
use super::controller_reference;
use super::references::{self, ByController};
use crate::Error;
use crate::runtime::{Context, OwnWrites};

/// Objects of kind `C` that objects of kind `O` control, with the writes that the cache may not show yet.
pub(crate) struct Children<O, C> {
    client: Client,
    recorder: EventRecorder,
    by_controller: ByController<C>,
    writes: OwnWrites<C>,
    /// What an adopted object gets and a released one loses.
    finalizer: Option<&'static str>,
    owner: PhantomData<fn(O)>,
}

impl<O: Typed, C: Typed> Children<O, C> {
    pub(crate) fn new(informer: &Arc<Informer<C>>, context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            by_controller: ByController::of(informer),
            writes: OwnWrites::new(informer),
            finalizer: None,
            owner: PhantomData,
        }
    }

    /// An adopted object gets this finalizer, a released one loses it.
    pub(crate) fn with_finalizer(mut self, finalizer: &'static str) -> Self {
        self.finalizer = Some(finalizer);
        self
    }

    /// Waits until the cache shows everything that was written for the owner with this key.
    pub(crate) async fn settle(&self, owner: &ObjectKey) -> Result<(), Error> {
        self.writes.settle(owner).await
    }

    /// The objects that the owner controls, from the cache.
    pub(crate) fn owned(&self, owner: &O) -> Vec<Arc<C>> {
        self.by_controller.owned(owner)
    }

    /// Adopts orphans that match and releases children that do not; returns the objects that the owner controls then. Objects for
    /// which `counts` is false are ignored.
    pub(crate) async fn claim(&self, owner: &O, selects: impl Fn(&C) -> bool, counts: impl Fn(&C) -> bool) -> Result<Vec<Arc<C>>, Error> {
        let mut candidates = self.by_controller.owned(owner);
        candidates.extend(self.by_controller.orphans(owner.namespace()));
        candidates.retain(|candidate| counts(candidate));
        let claim = claim(owner.meta(), selects, candidates);
        let mut owned = claim.owned;
        for child in claim.release {
            self.release(owner, &child).await?;
        }
        if !claim.adopt.is_empty() {
            self.may_adopt(owner).await?;
        }
        for child in claim.adopt {
            if self.adopt(owner, &child).await? {
                owned.push(child);
            }
        }
        Ok(owned)
    }

    /// The cache may be older than the owner's deletion or replacement: asks.
    async fn may_adopt(&self, owner: &O) -> Result<(), Error> {
        let fresh: O = self.client.get(Some(owner.namespace()), owner.name()).await?;
        if fresh.uid() != owner.uid() || fresh.meta().deletion_timestamp.is_some() {
            return Err(Error::StaleCache);
        }
        Ok(())
    }

    async fn adopt(&self, owner: &O, child: &C) -> Result<bool, Error> {
        let mut patch = references::adopt_patch(&controller_reference(owner), child.uid());
        if let Some(finalizer) = self.finalizer {
            patch["metadata"]["finalizers"] = json!([finalizer]);
        }
        self.change_owners(owner, child, patch).await
    }

    async fn release(&self, owner: &O, child: &C) -> Result<bool, Error> {
        let mut patch = references::release_patch(owner.uid(), child.uid());
        if let Some(finalizer) = self.finalizer {
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
        }
        self.change_owners(owner, child, patch).await
    }

    /// False if the object is gone, another one, or cannot be changed so.
    async fn change_owners(&self, owner: &O, child: &C, patch: serde_json::Value) -> Result<bool, Error> {
        match self.client.patch::<C>(Some(child.namespace()), child.name(), &Patch::Strategic(patch)).await {
            Ok(written) => {
                self.writes.wrote(&ObjectKey::of(owner), &written);
                Ok(true)
            }
            Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates an object for the owner; returns it as stored.
    pub(crate) async fn create(&self, owner: &O, child: &C) -> Result<C, trireme_client::Error> {
        let created = self.client.create(Some(owner.namespace()), child).await?;
        self.writes.wrote(&ObjectKey::of(owner), &created);
        Ok(created)
    }

    /// Patches an object of the owner; returns it as stored.
    pub(crate) async fn patch(&self, owner: &O, child: &C, patch: &Patch) -> Result<C, trireme_client::Error> {
        let written = self.client.patch::<C>(Some(child.namespace()), child.name(), patch).await?;
        self.writes.wrote(&ObjectKey::of(owner), &written);
        Ok(written)
    }

    /// Deletes an object of the owner; one that is gone is deleted.
    pub(crate) async fn delete(&self, owner: &O, child: &C) -> Result<(), trireme_client::Error> {
        match self.client.delete::<C>(Some(child.namespace()), child.name(), &DeleteOptions::uid(child.uid())).await {
            Ok(()) => {
                self.writes.deleted(&ObjectKey::of(owner), child);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// An object that was found in the API and that the cache may not show yet.
    pub(crate) fn found(&self, owner: &O, child: &C) {
        self.writes.wrote(&ObjectKey::of(owner), child);
    }
}

/// For pods, creation and deletion are recorded as events of the owner.
impl<O: Typed> Children<O, Pod> {
    /// The pod that an owner's template describes, named after the owner.
    pub(crate) fn pod_of(owner: &O, template: &PodTemplateSpec) -> Pod {
        let meta = template.metadata.clone().unwrap_or_default();
        Pod {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", owner.name())),
                namespace: owner.meta().namespace.clone(),
                labels: meta.labels,
                annotations: meta.annotations,
                finalizers: meta.finalizers,
                owner_references: Some(vec![controller_reference(owner)]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    }

    /// Creates a pod and says so. In a namespace that goes away nothing is created, and that is no error.
    pub(crate) async fn create_pod(&self, owner: &O, pod: &Pod) -> Result<(), Error> {
        match self.create(owner, pod).await {
            Ok(created) => {
                self.recorder.record(owner, EventKind::Normal, "SuccessfulCreate", format!("Created pod: {}", created.name()));
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.recorder.record(owner, EventKind::Warning, "FailedCreate", format!("Error creating: {error}"));
                Err(error.into())
            }
        }
    }

    /// Deletes a pod and says so.
    pub(crate) async fn delete_pod(&self, owner: &O, pod: &Pod) -> Result<(), Error> {
        match self.delete(owner, pod).await {
            Ok(()) => {
                self.recorder.record(owner, EventKind::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) => {
                self.recorder.record(owner, EventKind::Warning, "FailedDelete", format!("Error deleting: {error}"));
                Err(error.into())
            }
        }
    }

    /// Deletes pods, all at once.
    pub(crate) async fn delete_pods(&self, owner: &O, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let deleting = pods.iter().map(|pod| self.delete_pod(owner, pod));
        let errors = futures::future::join_all(deleting).await.into_iter().filter_map(Result::err).collect();
        Error::first_of(errors).map_or(Ok(()), Err)
    }
}
