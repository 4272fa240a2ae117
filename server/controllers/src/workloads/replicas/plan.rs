//! How many pods to create, or which to delete. No I/O.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use trireme_client::Object;

use crate::pods;

/// Pods created or deleted in one reconcile.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// `neighbours` counts the active pods of related owners on a node: the more, the sooner one of these there goes.
pub(super) fn plan(wanted: i32, owned: &[Arc<Pod>], neighbours: impl Fn(&str) -> usize) -> Plan {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let active: Vec<&Arc<Pod>> = owned.iter().filter(|pod| pods::is_active(pod)).collect();
    match active.len().cmp(&wanted) {
        Ordering::Equal => Plan::Nothing,
        Ordering::Less => Plan::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            let mut counted: HashMap<&str, usize> = HashMap::new();
            let mut ranked: Vec<(Rank, &Arc<Pod>)> = active
                .into_iter()
                .map(|pod| {
                    let crowd = pods::node_name(pod).map(|node| *counted.entry(node).or_insert_with(|| neighbours(node))).unwrap_or(0);
                    (rank(pod, crowd), pod)
                })
                .collect();
            ranked.sort_by(|(one, pod), (other, other_pod)| one.cmp(other).then_with(|| pod.name().cmp(other_pod.name())));
            Plan::Delete(ranked.into_iter().take(surplus).map(|(_, pod)| Arc::clone(pod)).collect())
        }
    }
}

/// The order of deletion, lowest first: unassigned, pending, not ready, low deletion cost, on a node with many pods of the owner, ready
/// for a short time, often restarted, young.
type Rank = (bool, u8, bool, i32, Reverse<usize>, Reverse<i64>, Reverse<i32>, Reverse<i64>);

fn rank(pod: &Pod, crowd: usize) -> Rank {
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = pods::is_ready(pod);
    let cost = pod.metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST));
    let ready_since = pods::condition(pod, "Ready")
        .filter(|_| ready)
        .and_then(|condition| condition.last_transition_time.as_ref())
        .map_or(0, |time| time.0.as_second());
    let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    (
        pods::node_name(pod).is_some(),
        phase,
        ready,
        cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
        Reverse(crowd),
        Reverse(ready_since),
        Reverse(pods::max_restarts(pod)),
        Reverse(created),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, cost: &str, created: &str) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {DELETION_COST: cost}, "creationTimestamp": created},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = [
            pod("old-ready", "n1", "Running", true, "0", "2026-01-01T00:00:00Z"),
            pod("costly", "n1", "Running", true, "100", "2026-01-03T00:00:00Z"),
            pod("young-ready", "n1", "Running", true, "0", "2026-01-02T00:00:00Z"),
            pod("crowded", "n2", "Running", true, "0", "2026-01-01T00:00:00Z"),
            pod("not-ready", "n1", "Running", false, "0", "2026-01-01T00:00:00Z"),
            pod("pending", "n1", "Pending", false, "0", "2026-01-01T00:00:00Z"),
            pod("unassigned", "", "Pending", false, "0", "2026-01-01T00:00:00Z"),
            pod("done", "n1", "Succeeded", false, "0", "2026-01-01T00:00:00Z"),
        ];
        let crowd = |node: &str| if node == "n2" { 9 } else { 1 };
        let Plan::Delete(victims) = plan(0, &pods, crowd) else { unreachable!("seven are too many") };
        let names: Vec<&str> = victims.iter().map(|pod| pod.name()).collect();
        assert_eq!(names, ["unassigned", "pending", "not-ready", "crowded", "young-ready", "old-ready", "costly"]);
        assert_eq!(plan(9, &pods, crowd), Plan::Create(2), "the finished one does not count");
        assert_eq!(plan(7, &pods, crowd), Plan::Nothing);
        assert_eq!(plan(10_000, &[], crowd), Plan::Create(BURST));
    }
}
