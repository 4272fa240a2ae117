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

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a> {
        Box::new(Asked(pod))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        false
    }
}

impl Prepared for Asked<'_> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        nodes
            .iter()
            .map(|node| {
                let fraction = |name: &str| {
                    let capacity = node.allocatable.get(name);
                    let used = node.requested.get(name) + self.0.requests.get(name);
                    (capacity > 0).then(|| (used as f64 / capacity as f64).min(1.0))
                };
                let apart = match (fraction(CPU), fraction(MEMORY)) {
                    (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
                    _ => 0.0,
                };
                ((1.0 - apart) * MAX_SCORE as f64) as i64
            })
            .collect()
    }
}
