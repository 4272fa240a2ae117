//! A pod goes to a zone of its volumes, where they name zones by their labels.
//!
//! Answers to: upstream's plugin VolumeZone.

use k8s_openapi::api::core::v1::PersistentVolume;
use trireme_client::storage;

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use crate::volumes;

const LABELS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Between the zones of one volume.
const SEPARATOR: &str = "__";

pub(crate) struct VolumeZone;

/// Labels, each with the values of which a node must have one.
struct Wanted(Vec<(&'static str, Vec<String>)>);

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let claims = volumes::claims(&pod.pod, snapshot).ok()?;
        let bound = claims.iter().filter(|claim| storage::is_bound(claim));
        let wanted: Vec<_> =
            bound.filter_map(|claim| snapshot.world.volume(storage::volume_of(claim))).flat_map(|volume| zones(&volume)).collect();
        if wanted.is_empty() { None } else { Some(Box::new(Wanted(wanted))) }
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        matches!(wake, Wake::NodeChanged | Wake::ClaimChanged | Wake::VolumeChanged | Wake::ClassChanged)
    }
}

fn zones(volume: &PersistentVolume) -> Vec<(&'static str, Vec<String>)> {
    let label = |key: &'static str| {
        let value = volume.metadata.labels.as_ref()?.get(key)?;
        Some((key, value.split(SEPARATOR).map(str::to_owned).collect()))
    };
    LABELS.into_iter().filter_map(label).collect()
}

impl Prepared for Wanted {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        // A cluster of one zone may have nodes without these labels.
        if LABELS.iter().all(|label| node.label(label).is_none()) {
            return Ok(());
        }
        let fits = self.0.iter().all(|(key, values)| node.label(key).is_some_and(|found| values.iter().any(|value| value == found)));
        if fits { Ok(()) } else { Err(Refusal::lasting("node(s) had no available volume zone")) }
    }
}
