//! A claim that is ReadWriteOncePod has one pod at a time.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes>.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use trireme_client::{Object, storage};

use crate::framework::{Change, Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use crate::volumes;

const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

pub(crate) struct VolumeRestrictions;

struct Exclusive<'a> {
    namespace: &'a str,
    claims: BTreeSet<String>,
    /// Uses of the claims by pods that have a node.
    uses: i64,
}

impl Exclusive<'_> {
    fn uses_of(&self, pod: &Pod) -> i64 {
        if pod.namespace() != self.namespace {
            return 0;
        }
        let count = storage::claims_of(pod).filter(|used| self.claims.contains(&used.claim)).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let all = volumes::claims(&pod.pod, snapshot).ok()?;
        let claims: BTreeSet<String> =
            all.iter().filter(|claim| storage::is_for_one_pod(claim)).map(|claim| claim.name().to_owned()).collect();
        if claims.is_empty() {
            return None;
        }
        let mut exclusive = Exclusive { namespace: pod.pod.namespace(), claims, uses: 0 };
        exclusive.uses = snapshot.nodes.iter().flat_map(|node| node.pods.values()).map(|other| exclusive.uses_of(&other.pod)).sum();
        Some(Box::new(exclusive))
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        matches!(wake, Wake::PodFreed | Wake::ClaimChanged)
    }
}

impl Prepared for Exclusive<'_> {
    fn filter(&self, _node: &NodeInfo) -> Result<(), Refusal> {
        if self.uses > 0 { Err(Refusal::passing(IN_USE)) } else { Ok(()) }
    }

    fn imagine(&mut self, other: &PodInfo, _node: &NodeInfo, change: Change) {
        self.uses = self.uses.saturating_add(change.step().saturating_mul(self.uses_of(&other.pod)));
    }
}
