//! The taints that a node's conditions call for. No I/O.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const MEMORY: &str = "node.kubernetes.io/memory-pressure";
const DISK: &str = "node.kubernetes.io/disk-pressure";
const PID: &str = "node.kubernetes.io/pid-pressure";
const NETWORK: &str = "node.kubernetes.io/network-unavailable";

/// The taints that are ours to set and remove.
const OURS: [(&str, &str); 9] = [
    (NOT_READY, "NoSchedule"),
    (NOT_READY, "NoExecute"),
    (UNREACHABLE, "NoSchedule"),
    (UNREACHABLE, "NoExecute"),
    (UNSCHEDULABLE, "NoSchedule"),
    (MEMORY, "NoSchedule"),
    (DISK, "NoSchedule"),
    (PID, "NoSchedule"),
    (NETWORK, "NoSchedule"),
];

/// The complete list of taints that the node should have; `None` if it has them already. `disrupted`: no node is ready, so no pod
/// is evicted.
pub(super) fn plan(node: &Node, disrupted: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let present = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let condition = |kind: &str| {
        node.status
            .as_ref()
            .and_then(|status| status.conditions.iter().flatten().find(|condition| condition.type_ == kind))
            .map(|condition| condition.status.as_str())
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match condition("Ready") {
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        Some(_) => {}
        // The kubelet has not reported yet: no pod should be scheduled there, but none needs to be evicted.
        None => wanted.push((NOT_READY, "NoSchedule")),
    }
    if disrupted {
        wanted.retain(|(_, effect)| *effect != "NoExecute");
    }
    for (kind, key) in [("MemoryPressure", MEMORY), ("DiskPressure", DISK), ("PIDPressure", PID), ("NetworkUnavailable", NETWORK)] {
        if condition(kind) == Some("True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> = present
        .iter()
        .filter(|taint| !OURS.iter().any(|ours| is(taint, *ours)) || wanted.iter().any(|one| is(taint, *one)))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, (key, effect))) {
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added: Some(Time(now)) });
        }
    }
    (taints != present).then_some(taints)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn taints(ready: &str, disrupted: bool, present: serde_json::Value) -> Option<Vec<String>> {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": present, "unschedulable": false},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap();
        let now = Timestamp::from_second(1_000).unwrap();
        plan(&node, disrupted, now).map(|list| {
            list.iter().map(|taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect)).collect()
        })
    }

    #[test]
    fn taints_mirror_conditions_and_leave_those_of_others_alone() {
        let other = json!({"key": "dedicated", "value": "db", "effect": "NoSchedule"});
        assert_eq!(taints("True", false, json!([other])), None);
        let silent = taints("Unknown", false, json!([other])).unwrap();
        assert_eq!(silent, ["dedicated:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]);
        assert_eq!(taints("Unknown", true, json!([])).unwrap(), ["unreachable:NoSchedule"], "all are silent: no eviction");
        let old = json!([{"key": UNREACHABLE, "effect": "NoExecute"}, {"key": UNREACHABLE, "effect": "NoSchedule"}]);
        assert_eq!(taints("False", false, old.clone()).unwrap(), ["not-ready:NoSchedule", "not-ready:NoExecute"]);
        assert_eq!(taints("True", false, old).unwrap(), Vec::<String>::new());
    }
}
