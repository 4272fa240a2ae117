//! Which volumes have to be attached to a node: those of its pods' claims, of drivers whose volumes are attached at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use trireme_client::storage::{self, csi::VolumeId};
use trireme_client::{Informer, Object};

use crate::pods;

/// A volume that pods of a node want.
#[derive(Clone, Debug)]
pub(super) struct Attachable {
    pub(super) id: VolumeId,
    pub(super) driver: String,
    /// The name of the PersistentVolume.
    pub(super) volume: String,
    /// Several nodes may have it at once.
    pub(super) is_shared: bool,
    pub(super) pods: Vec<Arc<Pod>>,
}

/// Where it is looked up.
pub(super) struct Catalog {
    pub(super) pods: Arc<Informer<Pod>>,
    pub(super) claims: Arc<Informer<PersistentVolumeClaim>>,
    pub(super) volumes: Arc<Informer<PersistentVolume>>,
    pub(super) drivers: Arc<Informer<CSIDriver>>,
}

/// What its driver calls a volume; none if it has no driver.
pub(super) fn id_of(volume: &PersistentVolume) -> Option<VolumeId> {
    let source = volume.spec.as_ref()?.csi.as_ref()?;
    Some(VolumeId { driver: source.driver.clone(), handle: source.volume_handle.clone() })
}

/// Whether a pod still needs its volumes: it has not finished, and if it is being deleted, something of it runs.
fn needs_volumes(pod: &Pod) -> bool {
    let runs = || {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        statuses.filter_map(|status| status.state.as_ref()).any(|state| state.running.is_some())
    };
    !pods::is_terminal(pod) && (!pods::is_terminating(pod) || runs())
}

fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    modes.is_empty() || modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"))
}

impl Catalog {
    /// What these pods want attached.
    pub(super) fn wanted(&self, pods: &[Arc<Pod>]) -> BTreeMap<VolumeId, Attachable> {
        let mut wanted: BTreeMap<VolumeId, Attachable> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| needs_volumes(pod)) {
            for volume in self.volumes_of(pod) {
                let Some(id) = id_of(&volume).filter(|id| self.is_attached(&id.driver)) else { continue };
                let entry = wanted.entry(id.clone()).or_insert_with(|| Attachable {
                    driver: id.driver.clone(),
                    volume: volume.name().to_owned(),
                    is_shared: is_shared(&volume),
                    pods: Vec::new(),
                    id,
                });
                entry.pods.push(Arc::clone(pod));
            }
        }
        wanted
    }

    /// Whether a driver's volumes are attached: unless its object says that they are not.
    fn is_attached(&self, driver: &str) -> bool {
        self.drivers.get("", driver).is_none_or(|driver| driver.spec.attach_required != Some(false))
    }

    /// The volumes that a pod's claims are bound to.
    fn volumes_of(&self, pod: &Pod) -> Vec<Arc<PersistentVolume>> {
        let claims = storage::claims_of(pod).filter_map(|used| {
            let claim = self.claims.get(pod.namespace(), &used.claim)?;
            (!used.ephemeral || storage::made_for(&claim, pod).is_ok()).then_some(claim)
        });
        let volumes = claims.filter_map(|claim| {
            let volume = self.volumes.get("", storage::volume_of(&claim))?;
            storage::is_meant_for(&volume, &claim).then_some(volume)
        });
        volumes.collect()
    }

    /// The nodes of the pods that use a claim.
    pub(super) fn nodes_of_claim(&self, namespace: &str, claim: &str) -> BTreeSet<String> {
        let pods = self.pods.list_namespace(namespace);
        let users = pods.iter().filter(|pod| storage::claims_of(pod).any(|used| used.claim == claim));
        users.filter_map(|pod| pods::node_name(pod).map(str::to_owned)).collect()
    }

    /// The nodes of the pods that use a volume.
    pub(super) fn nodes_of_volume(&self, volume: &PersistentVolume) -> BTreeSet<String> {
        let Some(claim) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return BTreeSet::new() };
        self.nodes_of_claim(claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default())
    }

    /// The pods of these nodes that have a volume.
    pub(super) fn users(&self, volume: &str, nodes: &[&str]) -> Vec<Arc<Pod>> {
        let Some(volume) = self.volumes.get("", volume) else { return Vec::new() };
        let Some(claim) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return Vec::new() };
        let mut pods = self.pods.list_namespace(claim.namespace.as_deref().unwrap_or_default());
        pods.retain(|pod| {
            pods::node_name(pod).is_some_and(|node| nodes.contains(&node))
                && needs_volumes(pod)
                && storage::claims_of(pod).any(|used| Some(&used.claim) == claim.name.as_ref())
        });
        pods
    }
}
