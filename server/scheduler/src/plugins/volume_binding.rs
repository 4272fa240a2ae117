//! A pod goes where its volumes are, or can be.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>.

use std::collections::BTreeSet;

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use crate::volumes::PodVolumes;

pub(crate) struct VolumeBinding;

struct Wanted<'a> {
    volumes: PodVolumes,
    snapshot: &'a Snapshot<'a>,
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter(&self, pod: &PodInfo, snapshot: &Snapshot<'_>) -> Result<Option<BTreeSet<String>>, Refusal> {
        PodVolumes::of(&pod.pod, snapshot).map(|_| None)
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let volumes = PodVolumes::of(&pod.pod, snapshot).ok()??;
        Some(Box::new(Wanted { volumes, snapshot }))
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        matches!(wake, Wake::NodeChanged | Wake::ClaimChanged | Wake::VolumeChanged | Wake::ClassChanged)
    }
}

impl Prepared for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        self.volumes.on(&node.node, self.snapshot).map(drop)
    }
}
