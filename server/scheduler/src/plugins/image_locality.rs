//! Prefers nodes that have the pod's larger images already.

use k8s_openapi::api::core::v1::Pod;

use crate::framework::{MAX_SCORE, Plugin, Prepared, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};

const MIN_BYTES: i64 = 23 << 20;
const MAX_BYTES_PER_CONTAINER: i64 = 1000 << 20;

pub(crate) struct ImageLocality;
struct Images<'a> {
    pod: &'a Pod,
    nodes: &'a [&'a NodeInfo],
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        Some(Box::new(Images { pod: &pod.pod, nodes: &snapshot.nodes }))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        false
    }
}

/// The size of an image on a node, if it is there.
fn size(node: &NodeInfo, image: &str) -> Option<i64> {
    let tagged = |name: &str| name == image || name.strip_suffix(":latest") == Some(image);
    node.node
        .status
        .as_ref()?
        .images
        .iter()
        .flatten()
        .find(|known| known.names.iter().flatten().any(|name| tagged(name)))
        .and_then(|known| known.size_bytes)
}

impl Prepared for Images<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let Some(spec) = &self.pod.spec else { return vec![0; nodes.len()] };
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let count = containers.clone().count();
        let mounted = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
        let images: Vec<&str> = containers.filter_map(|container| container.image.as_deref()).chain(mounted).collect();
        let total = i64::try_from(self.nodes.len()).unwrap_or(1).max(1);
        // An image on many nodes says less: one node must not draw all pods that share it.
        let spread: Vec<i64> = images
            .iter()
            .map(|image| i64::try_from(self.nodes.iter().filter(|node| size(node, image).is_some()).count()).unwrap_or(0))
            .collect();
        let max = MAX_BYTES_PER_CONTAINER * i64::try_from(count).unwrap_or(1).max(1);
        nodes
            .iter()
            .map(|node| {
                let sum: i64 = images.iter().zip(&spread).filter_map(|(image, holders)| Some(size(node, image)? / total * holders)).sum();
                (sum.clamp(MIN_BYTES, max) - MIN_BYTES) * MAX_SCORE / (max - MIN_BYTES)
            })
            .collect()
    }
}
