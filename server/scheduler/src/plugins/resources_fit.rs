//! A node has what the pod asks for; the emptier node is better (LeastAllocated).

use crate::framework::{MAX_SCORE, Plugin, Prepared, Reason, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use crate::resources::{CPU, MEMORY, PODS};

pub(crate) struct NodeResourcesFit;
struct Asked<'a>(&'a PodInfo);

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        Some(Box::new(Asked(pod)))
    }

    fn weight(&self) -> i64 {
        1
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        matches!(wake, Wake::NodeChanged | Wake::PodFreed | Wake::PodChanged)
    }
}

impl Prepared for Asked<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let mut reasons: Vec<Reason> = Vec::new();
        let mut lasting = false;
        let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
        if pods.saturating_add(1) > node.allocatable.get(PODS) {
            reasons.push("Too many pods".into());
        }
        for (name, amount) in self.0.requests.iter() {
            let has = node.allocatable.get(name);
            if amount > 0 && amount > has.saturating_sub(node.requested.get(name)) {
                reasons.push(format!("Insufficient {name}").into());
                lasting |= amount > has;
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Refusal { reasons, lasting }) }
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        nodes
            .iter()
            .map(|node| {
                let shares: Vec<i64> = [CPU, MEMORY]
                    .iter()
                    .filter(|name| node.allocatable.get(name) > 0)
                    .map(|name| {
                        let capacity = node.allocatable.get(name);
                        let used = node.scored_requested.get(name) + self.0.scored_requests.get(name);
                        if used > capacity { 0 } else { (capacity - used) * MAX_SCORE / capacity }
                    })
                    .collect();
                let count = i64::try_from(shares.len()).unwrap_or(0);
                if count == 0 { 0 } else { shares.iter().sum::<i64>() / count }
            })
            .collect()
    }
}
