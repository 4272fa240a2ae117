//! On which nodes a DaemonSet's pods run. No I/O.
//!
//! The controller decides this by itself, and by the same rules as the scheduler: it makes a pod for one node, which the scheduler
//! then binds to that node.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, PodSpec, Toleration};
use trireme_client::Object;
use trireme_client::placement::{accepts, has_untolerated_taint};

/// Whether a node is eligible for a pod of a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It should have a pod.
    Runs,
    /// It gets no new pod, but an existing one stays: an untolerated taint has only the effect NoSchedule.
    Keeps,
    /// It should have none.
    Refuses,
}

/// The tolerations that every pod of a DaemonSet has: (key, effect).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// That of pods in the host's network: they may be what makes the network available.
const TOLERATED_ON_HOST: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Adds the tolerations that every pod of a DaemonSet has, in place of weaker ones for the same taint.
pub(super) fn add_tolerations(spec: &mut PodSpec) {
    let on_host = spec.host_network == Some(true);
    let all = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(on_host.then_some(TOLERATED_ON_HOST)) {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same_taint = |one: &Toleration| {
            one.key == wanted.key
                && one.effect == wanted.effect
                && one.operator == wanted.operator
                && one.value.as_deref().unwrap_or_default().is_empty()
        };
        if !all.iter().any(same_taint) {
            all.push(wanted);
            continue;
        }
        for known in all.iter_mut().filter(|one| same_taint(one)) {
            known.clone_from(&wanted);
        }
    }
}

/// The pods of one DaemonSet, as far as their place goes.
pub(super) struct Place(PodSpec);

impl Place {
    pub(super) fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
        add_tolerations(&mut spec);
        Self(spec)
    }

    pub(super) fn fit(&self, node: &Node) -> Fit {
        let spec = &self.0;
        let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
        if named.is_some_and(|name| name != node.name()) || !accepts(spec, node) {
            return Fit::Refuses;
        }
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        if has_untolerated_taint(node, tolerations, &["NoExecute"]) {
            Fit::Refuses
        } else if has_untolerated_taint(node, tolerations, &["NoSchedule"]) {
            Fit::Keeps
        } else {
            Fit::Runs
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn fit(template: Value, node: Value) -> Fit {
        let set: DaemonSet = serde_json::from_value(json!({"spec": {"selector": {}, "template": {"spec": template}}})).unwrap();
        Place::of(&set).fit(&serde_json::from_value(node).unwrap())
    }

    fn tainted(key: &str, effect: &str) -> Value {
        json!({"metadata": {"name": "n", "labels": {"color": "blue"}}, "spec": {"taints": [{"key": key, "effect": effect}]}})
    }

    #[test]
    fn selectors_affinity_and_taints_decide() {
        let node = || json!({"metadata": {"name": "n", "labels": {"color": "blue"}}});
        let pod = || json!({"containers": []});
        let with = |field: &str, value: Value| {
            let mut pod = pod();
            pod[field] = value;
            pod
        };
        let affinity = |color: &str| {
            let terms = json!([{"matchExpressions": [{"key": "color", "operator": "In", "values": [color]}]}]);
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
        };
        let toleration = json!([{"key": "gpu", "operator": "Exists"}]);
        for (template, node, expected) in [
            (pod(), node(), Fit::Runs),
            (with("nodeName", json!("n")), node(), Fit::Runs),
            (with("nodeName", json!("other")), node(), Fit::Refuses),
            (with("nodeSelector", json!({"color": "blue"})), node(), Fit::Runs),
            (with("nodeSelector", json!({"color": "green"})), node(), Fit::Refuses),
            (with("affinity", affinity("blue")), node(), Fit::Runs),
            (with("affinity", affinity("green")), node(), Fit::Refuses),
            (pod(), tainted("gpu", "NoSchedule"), Fit::Keeps),
            (pod(), tainted("gpu", "NoExecute"), Fit::Refuses),
            (pod(), tainted("gpu", "PreferNoSchedule"), Fit::Runs),
            (with("tolerations", toleration), tainted("gpu", "NoExecute"), Fit::Runs),
            (pod(), tainted("node.kubernetes.io/unschedulable", "NoSchedule"), Fit::Runs),
            (pod(), tainted("node.kubernetes.io/unreachable", "NoExecute"), Fit::Runs),
            (pod(), tainted("node.kubernetes.io/network-unavailable", "NoSchedule"), Fit::Keeps),
            (with("hostNetwork", json!(true)), tainted("node.kubernetes.io/network-unavailable", "NoSchedule"), Fit::Runs),
        ] {
            assert_eq!(fit(template.clone(), node.clone()), expected, "{template} on {node}");
        }
    }

    #[test]
    fn a_weaker_toleration_is_replaced() {
        let mut spec: PodSpec = serde_json::from_value(json!({"containers": [], "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}))
        .unwrap();
        add_tolerations(&mut spec);
        let all = spec.tolerations.unwrap();
        assert_eq!(all.len(), TOLERATED.len());
        assert_eq!(all[0].toleration_seconds, None, "its pods stay on a node that is not ready");
    }
}
