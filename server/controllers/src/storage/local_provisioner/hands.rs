//! What the provisioner reads, and each of its writes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use trireme_client::{Client, EventKind, EventRecorder, Index, Informer, Object, ObjectKey, Typed, storage};

use crate::Error;
use crate::runtime::{Context, OwnWrites};
use crate::storage::guarded;

/// Claims, volumes, classes and nodes.
pub(super) type Reads =
    (Arc<Informer<PersistentVolumeClaim>>, Arc<Informer<PersistentVolume>>, Arc<Informer<StorageClass>>, Arc<Informer<Node>>);

/// The hands of the controller.
pub(super) struct Hands {
    pub(super) client: Client,
    recorder: EventRecorder,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    pub(super) classes: Arc<Informer<StorageClass>>,
    pub(super) nodes: Arc<Informer<Node>>,
    by_class: Index<PersistentVolumeClaim>,
    by_selected_node: Index<PersistentVolumeClaim>,
    by_node: Index<PersistentVolume>,
    claim_writes: OwnWrites<PersistentVolumeClaim>,
    volume_writes: OwnWrites<PersistentVolume>,
}

/// Whether a claim has no volume and the binder asked this provisioner for one.
pub(super) fn asks(claim: &PersistentVolumeClaim) -> bool {
    let asked = storage::annotation(claim, storage::PROVISIONER).or_else(|| storage::annotation(claim, storage::BETA_PROVISIONER));
    asked == Some(storage::LOCAL_PROVISIONER) && storage::volume_of(claim).is_empty() && claim.metadata.deletion_timestamp.is_none()
}

fn one(value: Option<&str>) -> Vec<String> {
    value.filter(|value| !value.is_empty()).map(str::to_owned).into_iter().collect()
}

impl Hands {
    pub(super) fn new((claims, volumes, classes, nodes): Reads, context: &Context) -> Self {
        Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            by_class: claims.index("local by class", |claim| one(Some(storage::class_of_claim(claim)).filter(|_| asks(claim)))),
            by_selected_node: claims
                .index("local by selected node", |claim| one(storage::annotation(claim, storage::SELECTED_NODE).filter(|_| asks(claim)))),
            by_node: volumes.index("local node", |volume| one(storage::annotation(volume, storage::LOCAL_NODE))),
            claim_writes: OwnWrites::new(&claims),
            volume_writes: OwnWrites::new(&volumes),
            claims,
            volumes,
            classes,
            nodes,
        }
    }

    /// The claims of a class that ask for a volume.
    pub(super) fn claims_of_class(&self, class: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        self.by_class.get(class)
    }

    /// Those whose pods go to a node.
    pub(super) fn claims_for_node(&self, node: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        self.by_selected_node.get(node)
    }

    /// The volumes of a node.
    pub(super) fn volumes_on(&self, node: &str) -> Vec<Arc<PersistentVolume>> {
        self.by_node.get(node)
    }

    /// Waits until the caches show everything that was written for the key.
    pub(super) async fn settle(&self, key: &ObjectKey) -> Result<(), Error> {
        self.claim_writes.settle(key).await?;
        self.volume_writes.settle(key).await
    }

    /// A volume was made for the claim with this key.
    pub(super) fn made(&self, key: &ObjectKey, volume: &PersistentVolume) {
        self.volume_writes.wrote(key, volume);
    }

    /// Without the annotation the scheduler chooses again.
    pub(super) async fn give_up_node(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        if storage::annotation(claim, storage::SELECTED_NODE).is_none() {
            return Ok(());
        }
        let patch = guarded(claim, json!({"metadata": {"annotations": {storage::SELECTED_NODE: null}}}));
        let written = self.client.patch::<PersistentVolumeClaim>(Some(claim.namespace()), claim.name(), &patch).await?;
        self.claim_writes.wrote(key, &written);
        Ok(())
    }

    /// Says in its status that a volume cannot be deleted.
    pub(super) async fn set_failed(&self, key: &ObjectKey, volume: &PersistentVolume, message: &str) -> Result<(), Error> {
        if storage::volume_phase(volume) == "Failed" {
            return Ok(());
        }
        let patch = guarded(volume, json!({"status": {"phase": "Failed", "message": message}}));
        let written = self.client.patch_status::<PersistentVolume>(None, volume.name(), &patch).await?;
        self.volume_writes.wrote(key, &written);
        Ok(())
    }

    /// Lets go of a volume that is being deleted.
    pub(super) async fn let_go(&self, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), Error> {
        let finalizers = || volume.metadata.finalizers.iter().flatten();
        if volume.metadata.deletion_timestamp.is_none() || !finalizers().any(|finalizer| finalizer == storage::LOCAL_FINALIZER) {
            return Ok(());
        }
        let others: Vec<&String> = finalizers().filter(|finalizer| *finalizer != storage::LOCAL_FINALIZER).collect();
        let patch: Value = json!({"metadata": {"finalizers": others}});
        match self.client.patch::<PersistentVolume>(None, volume.name(), &guarded(volume, patch)).await {
            Ok(written) => self.volume_writes.wrote(key, &written),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) fn warn<T: Typed>(&self, object: &T, reason: &str, message: impl Into<String>) {
        self.recorder.record(object, EventKind::Warning, reason, message);
    }

    pub(super) fn tell<T: Typed>(&self, object: &T, reason: &str, message: impl Into<String>) {
        self.recorder.record(object, EventKind::Normal, reason, message);
    }
}
