//! The volumes of a pod that is on its way to a node: claims get their volumes, or are told for which node to have one made, and the
//! pod waits until they are bound. Its place on the node is counted meanwhile.
//!
//! Answers to: upstream's plugin VolumeBinding (PreBind).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::{Value, json};
use trireme_client::{Object, Patch, Typed, storage};

use super::Shared;
use super::events::node_name;
use crate::volumes::Steps;

/// How a wait for volumes ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Bound,
    /// The pod needs no place any more.
    Gone,
    /// It has to be tried again, for this reason.
    Failed(String),
}

impl Shared {
    /// Writes what the claims need on the node and waits until they are bound.
    pub(super) async fn bind_volumes(&self, pod: &Arc<Pod>, node: &str, steps: &Steps) -> Waited {
        let mut given = 0;
        for (volume, claim) in &steps.take {
            match self.give(volume, claim).await {
                Ok(revision) => given = revision.max(given),
                Err(error) => return Waited::Failed(format!("claim {:?} did not get volume {:?}: {error}", claim.name(), volume.name())),
            }
        }
        let mut written = 0;
        for claim in &steps.provision {
            match self.select_node(claim, node).await {
                Ok(revision) => written = revision.max(written),
                Err(error) => return Waited::Failed(format!("claim {:?} was not told its node: {error}", claim.name())),
            }
        }
        let wait = async {
            // Before that, the cache says nothing about what was written.
            self.informers.claims.wait_until(|| self.informers.claims.last_revision() >= written).await;
            let settled = || steps.claims().all(|claim| self.verdict(claim, node, steps).is_some());
            self.informers.claims.wait_until(settled).await;
            steps.claims().find_map(|claim| self.verdict(claim, node, steps).and_then(Result::err)).map_or(Waited::Bound, Waited::Failed)
        };
        let gone = self.informers.pods.wait_until(|| {
            let current = self.informers.pods.get(pod.namespace(), pod.name());
            current.is_none_or(|current| {
                current.uid() != pod.uid() || current.metadata.deletion_timestamp.is_some() || node_name(&current).is_some()
            })
        });
        let lost = self.informers.volumes.wait_until(|| self.informers.volumes.last_revision() >= given && self.lost(steps).is_some());
        tokio::select! {
            waited = wait => waited,
            () = gone => Waited::Gone,
            () = lost => Waited::Failed(format!("ClaimRef got reset for pv {:?}", self.lost(steps).unwrap_or_default())),
            () = tokio::time::sleep(self.options.volume_patience) => {
                Waited::Failed(format!("timed out after {} s waiting for the pod's volumes", self.options.volume_patience.as_secs()))
            }
        }
    }

    /// The volume names the claim; the volume controller does the rest. The revision of the write.
    async fn give(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<i64, trireme_client::Error> {
        let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|reference| reference.uid.as_deref());
        if owner == Some(claim.uid()) {
            return Ok(0);
        }
        let mut patch = json!({"spec": {"claimRef": storage::claim_reference(claim)}});
        if !storage::is_meant_for(volume, claim) {
            patch["metadata"] = json!({"annotations": {storage::BOUND_BY_CONTROLLER: "yes"}});
        }
        self.write(volume, patch).await.map(|written| revision(&written))
    }

    /// The first volume that a claim was given and does not have any more.
    fn lost(&self, steps: &Steps) -> Option<String> {
        let names = |volume: &PersistentVolume, claim: &PersistentVolumeClaim| {
            self.informers.volumes.get("", volume.name()).is_some_and(|current| storage::is_meant_for(&current, claim))
        };
        steps.take.iter().find(|(volume, claim)| !names(volume, claim)).map(|(volume, _)| volume.name().to_owned())
    }

    /// The provisioner makes a volume for this node. The revision of the write.
    async fn select_node(&self, claim: &PersistentVolumeClaim, node: &str) -> Result<i64, trireme_client::Error> {
        if storage::annotation(claim, storage::SELECTED_NODE) == Some(node) {
            return Ok(0);
        }
        let written = self.write(claim, json!({"metadata": {"annotations": {storage::SELECTED_NODE: node}}})).await?;
        Ok(revision(&written))
    }

    /// Writes to the object as it was decided on, and to no other version.
    async fn write<T: Typed + Clone>(&self, object: &T, mut patch: Value) -> Result<T, trireme_client::Error> {
        patch["metadata"]["uid"] = json!(object.uid());
        patch["metadata"]["resourceVersion"] = json!(object.meta().resource_version);
        let namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
        self.client.patch::<T>(namespace, object.name(), &Patch::Merge(patch)).await
    }

    /// Whether a claim is bound or will not be; none: it is on its way.
    fn verdict(&self, claim: &PersistentVolumeClaim, node: &str, steps: &Steps) -> Option<Result<(), String>> {
        let name = claim.name();
        let current = self.informers.claims.get(claim.namespace(), name).filter(|current| current.uid() == claim.uid());
        let Some(current) = current else { return Some(Err(format!("persistentvolumeclaim {name:?} not found"))) };
        if !storage::is_bound(&current) || storage::claim_phase(&current) != "Bound" {
            let awaits_provisioner = steps.provision.iter().any(|provisioned| provisioned.uid() == claim.uid());
            return match storage::annotation(&*current, storage::SELECTED_NODE) {
                _ if !awaits_provisioner => None,
                None => Some(Err(format!("selectedNode annotation reset for PVC {name:?}"))),
                Some(selected) if selected != node => Some(Err(format!("provisioning failed for PVC {name:?}"))),
                Some(_) => None,
            };
        }
        let (volume, place) = (self.informers.volumes.get("", storage::volume_of(&current)), self.informers.nodes.get("", node));
        match (volume, place) {
            (_, None) => Some(Err(format!("failed to get node {node:?}"))),
            (Some(volume), Some(place)) if !storage::is_usable_on(&volume, &place) => {
                Some(Err(format!("pv {:?} node affinity doesn't match node {node:?}", volume.name())))
            }
            // The cache of volumes may be a moment behind: the kubelet looks again.
            _ => Some(Ok(())),
        }
    }
}

fn revision(written: &impl Object) -> i64 {
    written.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
