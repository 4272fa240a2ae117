//! Prefers nodes whose cpu and memory would be used alike.

use crate::framework::{MAX_SCORE, Plugin, Prepared, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use crate::resources::{CPU, MEMORY};

pub(crate) struct NodeResourcesBalancedAllocation;
struct Asked<'a>(&'a PodInfo);

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        // A pod that asks for nothing would be drawn to one node again and again.
        let asks = pod.requests.get(CPU) > 0 || pod.requests.get(MEMORY) > 0;
        if asks { Some(Box::new(Asked(pod))) } else { None }
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        false
    }
}

impl Prepared for Asked<'_> {
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        // How much better or worse the pod makes the balance, from half of the best score upwards.
        let improvement = |node: &&NodeInfo| {
            let (before, after) = (balance(node, None), balance(node, Some(self.0)));
            MAX_SCORE / 2 + (MAX_SCORE / 2 + after - before) / 2
        };
        nodes.iter().map(improvement).collect()
    }
}

/// [`MAX_SCORE`] if cpu and memory are used alike, half of it if one is full and the other is free.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn balance(node: &NodeInfo, with: Option<&PodInfo>) -> i64 {
    let fraction = |name: &str| {
        let capacity = node.allocatable.get(name);
        let used = node.requested.get(name) + with.map_or(0, |pod| pod.requests.get(name));
        (capacity > 0).then(|| (used as f64 / capacity as f64).min(1.0))
    };
    let apart = match (fraction(CPU), fraction(MEMORY)) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0,
    };
    ((1.0 - apart) * MAX_SCORE as f64) as i64
}
