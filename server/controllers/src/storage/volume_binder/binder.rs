//! What the controller reads, and each of its writes. Every write names the version that it was decided on.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use trireme_client::{Client, EventKind, EventRecorder, Index, Informer, Object, ObjectKey, Typed, storage};

use crate::Error;
use crate::runtime::{Context, OwnWrites};
use crate::storage::guarded;

/// Claims, volumes, classes and pods.
pub(super) type Reads =
    (Arc<Informer<PersistentVolumeClaim>>, Arc<Informer<PersistentVolume>>, Arc<Informer<StorageClass>>, Arc<Informer<Pod>>);

/// The hands of the controller.
pub(super) struct Binder {
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    pub(super) classes: Arc<Informer<StorageClass>>,
    pub(super) pods: Arc<Informer<Pod>>,
    unbound_by_class: Index<PersistentVolumeClaim>,
    by_volume: Index<PersistentVolumeClaim>,
    by_claim: Index<PersistentVolume>,
    claim_writes: OwnWrites<PersistentVolumeClaim>,
    volume_writes: OwnWrites<PersistentVolume>,
}

/// The key of the claim that a volume names.
pub(super) fn claim_key(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(reference.namespace.as_deref().unwrap_or_default(), reference.name.as_deref().unwrap_or_default()))
}

/// The key under which a volume's writes are remembered.
pub(super) fn volume_key(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}

fn one(value: Option<&str>) -> Vec<String> {
    value.filter(|value| !value.is_empty()).map(str::to_owned).into_iter().collect()
}

impl Binder {
    pub(super) fn new((claims, volumes, classes, pods): Reads, context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            unbound_by_class: claims.index("unbound by class", |claim| {
                let unbound = !storage::is_bound(claim) && storage::volume_of(claim).is_empty();
                if unbound { vec![storage::class_of_claim(claim).to_owned()] } else { Vec::new() }
            }),
            by_volume: claims.index("volume", |claim| one(Some(storage::volume_of(claim)))),
            by_claim: volumes.index("claim", |volume| claim_key(volume).map(|key| key.to_string()).into_iter().collect()),
            claim_writes: OwnWrites::new(&claims),
            volume_writes: OwnWrites::new(&volumes),
            claims,
            volumes,
            classes,
            pods,
        }
    }

    /// Claims of a class that have no volume; an empty name: of no class.
    pub(super) fn unbound_claims(&self, class: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        self.unbound_by_class.get(class)
    }

    /// The claims that name a volume.
    pub(super) fn claims_naming(&self, volume: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        self.by_volume.get(volume)
    }

    /// The volumes that name a claim.
    pub(super) fn volumes_naming(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        self.by_claim.get(&ObjectKey::of(claim).to_string())
    }

    /// Waits until the caches show everything that was written for the key.
    pub(super) async fn settle(&self, key: &ObjectKey) -> Result<(), Error> {
        self.claim_writes.settle(key).await?;
        self.volume_writes.settle(key).await
    }

    /// Binds volume and claim, the volume first. An end that is already bound is not written again.
    pub(super) async fn bind(
        &self,
        key: &ObjectKey,
        volume: Arc<PersistentVolume>,
        claim: Arc<PersistentVolumeClaim>,
    ) -> Result<(), Error> {
        let volume = self.name_claim(key, volume, &claim).await?;
        let volume = self.set_volume_phase(key, volume, "Bound", "").await?;
        let claim = self.name_volume(key, claim, &volume).await?;
        self.set_claim_status(key, claim, "Bound", Some(&volume)).await
    }

    async fn name_claim(
        &self,
        key: &ObjectKey,
        volume: Arc<PersistentVolume>,
        claim: &PersistentVolumeClaim,
    ) -> Result<Arc<PersistentVolume>, Error> {
        let named = storage::is_meant_for(&volume, claim);
        let uid = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|reference| reference.uid.as_deref());
        if named && uid == Some(claim.uid()) {
            return Ok(volume);
        }
        let mut patch = json!({"spec": {"claimRef": storage::claim_reference(claim)}});
        if !named {
            patch["metadata"] = json!({"annotations": {storage::BOUND_BY_CONTROLLER: "yes"}});
        }
        self.write_volume(key, &volume, patch).await
    }

    async fn name_volume(
        &self,
        key: &ObjectKey,
        claim: Arc<PersistentVolumeClaim>,
        volume: &PersistentVolume,
    ) -> Result<Arc<PersistentVolumeClaim>, Error> {
        let named = storage::volume_of(&claim) == volume.name();
        if named && storage::is_bound(&claim) {
            return Ok(claim);
        }
        let mut patch = json!({"metadata": {"annotations": {storage::BIND_COMPLETED: "yes"}}});
        if !named {
            patch["metadata"]["annotations"][storage::BOUND_BY_CONTROLLER] = json!("yes");
            patch["spec"] = json!({"volumeName": volume.name()});
        }
        self.write_claim(key, &claim, patch).await
    }

    /// Takes a volume back from a claim. One that a user reserved for it stays reserved.
    pub(super) async fn unbind(&self, key: &ObjectKey, volume: &Arc<PersistentVolume>) -> Result<(), Error> {
        let patch = if storage::annotation(&**volume, storage::BOUND_BY_CONTROLLER).is_some() {
            json!({"metadata": {"annotations": {storage::BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
        } else {
            json!({"spec": {"claimRef": {"uid": null, "resourceVersion": null}}})
        };
        let volume = self.write_volume(key, volume, patch).await?;
        self.set_volume_phase(key, volume, "Available", "").await.map(drop)
    }

    /// Writes a volume's phase if it is another one.
    pub(super) async fn set_volume_phase(
        &self,
        key: &ObjectKey,
        volume: Arc<PersistentVolume>,
        phase: &str,
        message: &str,
    ) -> Result<Arc<PersistentVolume>, Error> {
        if storage::volume_phase(&volume) == phase && volume.status.as_ref().is_some_and(|status| status.phase.is_some()) {
            return Ok(volume);
        }
        let message = Some(message).filter(|message| !message.is_empty());
        let patch = guarded(&*volume, json!({"status": {"phase": phase, "message": message}}));
        let written = self.client.patch_status::<PersistentVolume>(None, volume.name(), &patch).await?;
        self.volume_writes.wrote(key, &written);
        Ok(Arc::new(written))
    }

    /// Writes the claim's status for its volume, if it differs.
    pub(super) async fn set_claim_status(
        &self,
        key: &ObjectKey,
        claim: Arc<PersistentVolumeClaim>,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        let status = claim.status.clone().unwrap_or_default();
        let spec = volume.and_then(|volume| volume.spec.as_ref());
        let modes = spec.and_then(|spec| spec.access_modes.clone());
        // A bound claim's capacity is the business of those that resize it.
        let keeps = phase == "Bound"
            && storage::claim_phase(&claim) == phase
            && status.capacity.as_ref().is_some_and(|capacity| !capacity.is_empty());
        let capacity = if keeps { status.capacity.clone() } else { spec.and_then(|spec| spec.capacity.clone()) };
        let is_set = |modes: &Option<Vec<String>>| modes.clone().filter(|modes| !modes.is_empty());
        let same = status.phase.as_deref() == Some(phase)
            && is_set(&status.access_modes) == is_set(&modes)
            && status.capacity.clone().filter(|capacity| !capacity.is_empty()) == capacity.clone().filter(|capacity| !capacity.is_empty());
        if same {
            return Ok(());
        }
        let patch = guarded(&*claim, json!({"status": {"phase": phase, "accessModes": modes, "capacity": capacity}}));
        let written = self.client.patch_status::<PersistentVolumeClaim>(Some(claim.namespace()), claim.name(), &patch).await?;
        self.claim_writes.wrote(key, &written);
        Ok(())
    }

    pub(super) async fn write_claim(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
        patch: Value,
    ) -> Result<Arc<PersistentVolumeClaim>, Error> {
        let written = self.client.patch::<PersistentVolumeClaim>(Some(claim.namespace()), claim.name(), &guarded(claim, patch)).await?;
        self.claim_writes.wrote(key, &written);
        Ok(Arc::new(written))
    }

    async fn write_volume(&self, key: &ObjectKey, volume: &PersistentVolume, patch: Value) -> Result<Arc<PersistentVolume>, Error> {
        let written = self.client.patch::<PersistentVolume>(None, volume.name(), &guarded(volume, patch)).await?;
        self.volume_writes.wrote(key, &written);
        Ok(Arc::new(written))
    }

    pub(super) fn warn<T: Typed>(&self, object: &T, reason: &str, message: impl Into<String>) {
        self.recorder.record(object, EventKind::Warning, reason, message);
    }

    pub(super) fn tell<T: Typed>(&self, object: &T, reason: &str, message: impl Into<String>) {
        self.recorder.record(object, EventKind::Normal, reason, message);
    }

    /// The claim that a volume names, if it is there and is the one that was meant. The cache may be older than the volume: before a claim
    /// counts as gone, the API is asked.
    pub(super) async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(key) = claim_key(volume).filter(|_| reference.is_some_and(|reference| reference.uid.is_some())) else { return Ok(None) };
        if let Some(claim) = self.claims.get_key(&key).filter(|claim| storage::is_meant_for(volume, claim)) {
            return Ok(Some(claim));
        }
        match self.client.get::<PersistentVolumeClaim>(Some(&key.namespace), &key.name).await {
            Ok(claim) => Ok(Some(Arc::new(claim)).filter(|claim| storage::is_meant_for(volume, claim))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
