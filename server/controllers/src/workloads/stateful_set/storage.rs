//! Writes the claims of a StatefulSet's pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch};

use super::claims::{claim_name, claims, is_managed_by_other, new_owners};
use super::identity::pod_name;
use super::view::View;
use crate::Error;
use crate::runtime::{Context, OwnWrites};

/// The claims of all sets, with the writes that the cache may not show yet.
pub(super) struct Storage {
    client: Client,
    recorder: EventRecorder,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    writes: OwnWrites<PersistentVolumeClaim>,
}

impl Storage {
    pub(super) fn new(claims: &Arc<Informer<PersistentVolumeClaim>>, context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            claims: Arc::clone(claims),
            writes: OwnWrites::new(claims),
        }
    }

    pub(super) async fn settle(&self, set: &ObjectKey) -> Result<(), Error> {
        self.writes.settle(set).await
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace, name)
    }

    /// Makes the claims of an ordinal that are missing. One that is being deleted is an error: it must be gone first.
    pub(super) async fn provide(&self, view: &View<'_>, ordinal: i32) -> Result<(), Error> {
        let mut errors = Vec::new();
        for claim in claims(view, ordinal) {
            if let Err(error) = self.provide_one(view, &claim, ordinal).await {
                errors.push(error);
            }
        }
        Error::first_of(errors).map_or(Ok(()), Err)
    }

    async fn provide_one(&self, view: &View<'_>, claim: &PersistentVolumeClaim, ordinal: i32) -> Result<(), Error> {
        let set = view.set;
        if let Some(known) = self.get(set.namespace(), claim.name()) {
            return match known.metadata.deletion_timestamp {
                Some(_) => Err(Error::Invalid(format!("pvc {} is being deleted", claim.name()))),
                None => Ok(()),
            };
        }
        let (pod, name) = (pod_name(set.name(), ordinal), claim.name());
        match self.client.create(Some(set.namespace()), claim).await {
            Ok(created) => {
                self.writes.wrote(&ObjectKey::of(set), &created);
                let message = format!("Create Claim {name} Pod {pod} in StatefulSet {} success", set.name());
                self.recorder.record(set, EventKind::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if error.is_already_exists() => Err(Error::StaleCache),
            Err(error) => {
                let message = format!("Create Claim {name} for Pod {pod} in StatefulSet {} failed error: {error}", set.name());
                self.recorder.record(set, EventKind::Warning, "FailedCreate", message);
                Err(error.into())
            }
        }
    }

    /// Gives the claims of a pod the owners that the retention policy wants.
    pub(super) async fn own(&self, view: &View<'_>, pod: &Pod, ordinal: i32) -> Result<(), Error> {
        let set = view.set;
        for template in view.claim_templates() {
            let name = claim_name(set.name(), template.name(), ordinal);
            let Some(claim) = self.get(set.namespace(), &name) else { continue };
            if is_managed_by_other(view, &claim, pod) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the retention \
                     policy is ignored for this claim"
                );
                self.recorder.record(set, EventKind::Warning, "ConflictingController", message);
            }
            let scaled_away = !view.ordinals().contains(&ordinal);
            let Some(owners) = new_owners(view, &claim, pod, scaled_away) else { continue };
            let patch = json!({"metadata": {
                "uid": claim.uid(),
                "resourceVersion": claim.metadata.resource_version,
                "ownerReferences": owners,
            }});
            match self.client.patch::<PersistentVolumeClaim>(Some(set.namespace()), &name, &Patch::Merge(patch)).await {
                Ok(written) => self.writes.wrote(&ObjectKey::of(set), &written),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
