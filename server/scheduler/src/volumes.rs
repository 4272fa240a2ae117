//! A pod's claims and what they need on a node. No I/O.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode> and upstream's plugin VolumeBinding.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use trireme_client::Object;
use trireme_client::storage::{self, Place};

use crate::framework::{Reason, Refusal, Snapshot};

const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOT_FOUND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SUCH_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// The claims of one pod.
pub(crate) struct PodVolumes {
    /// Their volumes, where there are such.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    /// Those that wait for their first pod, the smallest first, so that small volumes are not taken by them last.
    late: Vec<Arc<PersistentVolumeClaim>>,
    /// All volumes, if any claim waits.
    volumes: Vec<Arc<PersistentVolume>>,
}

/// What is to be written before a pod is bound to a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    /// Volumes that claims get.
    pub(crate) take: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Claims for which a volume is made.
    pub(crate) provision: Vec<Arc<PersistentVolumeClaim>>,
}

impl Steps {
    pub(crate) fn is_empty(&self) -> bool {
        self.take.is_empty() && self.provision.is_empty()
    }

    /// The claims that have to be bound before the pod is.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Arc<PersistentVolumeClaim>> {
        self.take.iter().map(|(_, claim)| claim).chain(&self.provision)
    }
}

/// The claims that a pod uses, all of which must be there and usable.
pub(crate) fn claims(pod: &Pod, snapshot: &Snapshot<'_>) -> Result<Vec<Arc<PersistentVolumeClaim>>, Refusal> {
    let mut claims = Vec::new();
    for used in storage::claims_of(pod) {
        let name = &used.claim;
        let Some(claim) = snapshot.world.claim(pod.namespace(), name) else {
            let said = if used.ephemeral {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            };
            return Err(Refusal::lasting(said));
        };
        if storage::claim_phase(&claim) == "Lost" {
            let volume = storage::volume_of(&claim);
            return Err(Refusal::lasting(format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}")));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(Refusal::lasting(format!("persistentvolumeclaim {name:?} is being deleted")));
        }
        if used.ephemeral {
            storage::made_for(&claim, pod).map_err(Refusal::lasting)?;
        }
        claims.push(claim);
    }
    Ok(claims)
}

impl PodVolumes {
    /// What a pod's claims say, before any node is looked at; `None` for a pod without claims.
    pub(crate) fn of(pod: &Pod, snapshot: &Snapshot<'_>) -> Result<Option<Self>, Refusal> {
        let claims = claims(pod, snapshot)?;
        if claims.is_empty() {
            return Ok(None);
        }
        let (mut bound, mut late): (Vec<_>, Vec<Arc<PersistentVolumeClaim>>) = (Vec::new(), Vec::new());
        for claim in claims {
            if storage::is_bound(&claim) {
                bound.push(snapshot.world.volume(storage::volume_of(&claim)));
                continue;
            }
            let class = snapshot.world.class(storage::class_of_claim(&claim));
            // One that names its volume does not wait for a pod.
            if !class.is_some_and(|class| storage::binds_late(&class)) || !storage::volume_of(&claim).is_empty() {
                return Err(Refusal::lasting("pod has unbound immediate PersistentVolumeClaims"));
            }
            if late.iter().all(|known| known.uid() != claim.uid()) {
                late.push(claim);
            }
        }
        late.sort_by_key(|claim| storage::request(claim));
        let volumes = if late.is_empty() { Vec::new() } else { snapshot.world.volumes() };
        Ok(Some(Self { bound, late, volumes }))
    }

    /// The steps that the claims need on a node, or the reason why they cannot be used there.
    pub(crate) fn on(&self, node: &Node, snapshot: &Snapshot<'_>) -> Result<Steps, Refusal> {
        let mut reasons: Vec<Reason> = Vec::new();
        if self.bound.iter().flatten().any(|volume| !storage::is_usable_on(volume, node)) {
            reasons.push(NODE_CONFLICT.into());
        }
        let steps = self.steps(node, snapshot);
        if steps.is_none() {
            reasons.push(NOT_FOUND.into());
        }
        if self.bound.iter().any(Option::is_none) {
            reasons.push(NO_SUCH_VOLUME.into());
        }
        match steps {
            Some(steps) if reasons.is_empty() => Ok(steps),
            _ => Err(Refusal { reasons, lasting: true }),
        }
    }

    fn steps(&self, node: &Node, snapshot: &Snapshot<'_>) -> Option<Steps> {
        let mut steps = Steps::default();
        let mut taken: HashSet<&str> = HashSet::new();
        for claim in &self.late {
            let selected = storage::annotation(&**claim, storage::SELECTED_NODE);
            if selected.is_some_and(|selected| selected != node.name()) {
                return None;
            }
            let is_taken = |volume: &PersistentVolume| {
                taken.contains(volume.name()) || snapshot.promised.get(volume.name()).is_some_and(|promised| promised != claim.uid())
            };
            let found = storage::best(claim, &self.volumes, Place::Node(node), is_taken).filter(|_| selected.is_none());
            match found {
                Some(volume) => {
                    taken.insert(volume.name());
                    steps.take.push((Arc::clone(volume), Arc::clone(claim)));
                }
                None if self.is_provisioned(claim, node, snapshot) => steps.provision.push(Arc::clone(claim)),
                None => return None,
            }
        }
        Some(steps)
    }

    /// Whether a volume can be made for a claim on a node.
    fn is_provisioned(&self, claim: &PersistentVolumeClaim, node: &Node, snapshot: &Snapshot<'_>) -> bool {
        // If an existing volume names the claim but cannot be used on this node, no second volume may be provisioned for the claim.
        let has_another = || self.volumes.iter().any(|volume| storage::is_meant_for(volume, claim) && !storage::is_usable_on(volume, node));
        let class = snapshot.world.class(storage::class_of_claim(claim));
        !has_another()
            && class.is_some_and(|class| {
                !class.provisioner.is_empty() && class.provisioner != storage::NO_PROVISIONER && storage::allows_node(&class, node)
            })
    }
}
