//! The node's own check before a pod runs for the first time: the scheduler's view may have been old, and some things only the node
//! knows. Pure.
//!
//! Answers to <https://kubernetes.io/docs/concepts/scheduling-eviction/> (kubelet admission): a pod that is refused here is Failed, not
//! retried.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, Pod};

use super::{spec, sysctls, verdict::Verdict};
use crate::{amount::Amount, container::resources};

/// What this node is and allows.
pub(crate) struct Host<'a> {
    pub(crate) node: Option<&'a Node>,
    pub(crate) allocatable: &'a BTreeMap<String, Amount>,
    /// Sysctls beyond the safe ones that pods may set; a trailing `*` stands for any end.
    pub(crate) allowed_unsafe_sysctls: &'a [String],
    /// The runtime can leave out the group memberships of an image.
    pub(crate) strict_groups: bool,
}

/// Whether the pod asks for its groups without those of its image.
pub(crate) fn wants_strict_groups(pod: &Pod) -> bool {
    let context = spec::pod_spec(pod).security_context.as_ref();
    context.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict")
}

/// Refuses a pod that this node must not run, that does not fit beside the others, or that does not want this node.
pub(crate) fn admit(pod: &Pod, others: &[Arc<Pod>], host: &Host<'_>) -> Option<Verdict> {
    let running: Vec<&Arc<Pod>> = others.iter().filter(|p| spec::uid(p) != spec::uid(pod) && !spec::is_finished(p)).collect();
    let refuse = |reason: String, message: String| Some(Verdict::new(&reason, format!("Pod was rejected: {message}")));
    if let Some(why) = sysctls::forbidden(pod, host.allowed_unsafe_sysctls) {
        return refuse("SysctlForbidden".into(), format!("forbidden sysctl: {why}"));
    }
    if wants_strict_groups(pod) && !host.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refuse("SupplementalGroupsPolicyNotSupported".into(), message.into());
    }
    if let Some((reason, message)) = lacking(pod, &running, host.allocatable) {
        return refuse(reason, message);
    }
    if host.node.is_some_and(|node| !wants(pod, node)) {
        return refuse("NodeAffinity".into(), "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into());
    }
    let taken = |port| running.iter().any(|other| host_ports(other).any(|taken| conflict(&port, &taken)));
    if host_ports(pod).any(taken) {
        return refuse("NodePorts".into(), "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into());
    }
    None
}

/// What the node lacks for this pod: upstream's reason and message.
pub(crate) fn lacking(pod: &Pod, running: &[&Arc<Pod>], allocatable: &BTreeMap<String, Amount>) -> Option<(String, String)> {
    let capacity = allocatable.get("pods").copied().unwrap_or_default().units();
    let count = i64::try_from(running.len()).unwrap_or(i64::MAX);
    if count.saturating_add(1) > capacity {
        let message = format!("Node didn't have enough resource: pods, requested: 1, used: {count}, capacity: {capacity}");
        return Some(("OutOfpods".into(), message));
    }
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let requested = resources::pod_request(pod, resource);
        let used = running.iter().map(|p| resources::pod_request(p, resource)).fold(Amount::default(), |a, b| a + b);
        let have = allocatable.get(resource).copied().unwrap_or_default();
        if !requested.is_zero() && used + requested > have {
            let show = |a: Amount| if resource == "cpu" { a.milli() } else { a.units() };
            let message = format!(
                "Node didn't have enough resource: {resource}, requested: {}, used: {}, capacity: {}",
                show(requested),
                show(used),
                show(have)
            );
            return Some((format!("OutOf{resource}"), message));
        }
    }
    None
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = (i32, String, String)> + '_ {
    let ports = spec::main_containers(pod).iter().flat_map(|c| c.ports.iter().flatten());
    ports.filter_map(|p| {
        let any = |text: &Option<String>, default: &str| text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| default.into());
        p.host_port.filter(|port| *port > 0).map(|port| (port, any(&p.protocol, "TCP"), any(&p.host_ip, "0.0.0.0")))
    })
}

fn conflict(a: &(i32, String, String), b: &(i32, String, String)) -> bool {
    a.0 == b.0 && a.1 == b.1 && (a.2 == b.2 || a.2 == "0.0.0.0" || b.2 == "0.0.0.0")
}

fn wants(pod: &Pod, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let pod_spec = spec::pod_spec(pod);
    if !pod_spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = pod_spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return true };
    let name = BTreeMap::from([("metadata.name".to_string(), node.metadata.name.clone().unwrap_or_default())]);
    required.node_selector_terms.iter().any(|term| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        // A term that says nothing selects nothing.
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|r| fulfils(r, labels))
            && fields.iter().all(|r| fulfils(r, &name))
    })
}

fn fulfils(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let found = labels.get(&requirement.key);
    let compare = |than: fn(i64, i64) -> bool| match (found.and_then(|f| f.parse().ok()), values.first().and_then(|v| v.parse().ok())) {
        (Some(a), Some(b)) => than(a, b),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(|f| values.contains(f)),
        "NotIn" => found.is_none_or(|f| !values.contains(f)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|a, b| a > b),
        "Lt" => compare(|a, b| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_known_words() {
        let pod = |uid: &str, cpu: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}),
            )
            .unwrap()
        };
        let allocatable = BTreeMap::from([
            ("cpu".to_string(), Amount::from_units(2)),
            ("pods".to_string(), Amount::from_units(3)),
            ("memory".to_string(), Amount::from_units(1)),
        ]);
        let others = [Arc::new(pod("a", "1500m"))];
        let host = Host { node: None, allocatable: &allocatable, allowed_unsafe_sysctls: &[], strict_groups: false };
        assert_eq!(admit(&pod("b", "500m"), &others, &host), None);
        let verdict = admit(&pod("b", "501m"), &others, &host).unwrap();
        assert_eq!(verdict.reason, "OutOfcpu");
        assert_eq!(verdict.message, "Pod was rejected: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000");
    }

    #[test]
    fn security_21_and_22_what_the_node_must_not_or_cannot_do_is_refused() {
        let pod = |context: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"securityContext": context, "containers": []}})).unwrap()
        };
        let allocatable = BTreeMap::from([("pods".to_string(), Amount::from_units(3))]);
        let verdict = |context: serde_json::Value, allowed: &[String], strict_groups: bool| {
            admit(&pod(context), &[], &Host { node: None, allocatable: &allocatable, allowed_unsafe_sysctls: allowed, strict_groups })
        };
        let somaxconn = json!({"sysctls": [{"name": "net.core.somaxconn", "value": "65535"}]});
        let refused = verdict(somaxconn.clone(), &[], true).unwrap();
        assert_eq!(
            (refused.reason.as_str(), refused.message.as_str()),
            ("SysctlForbidden", "Pod was rejected: forbidden sysctl: \"net.core.somaxconn\" not allowlisted")
        );
        assert_eq!(verdict(somaxconn, &["net.core.*".into()], true), None);
        let strict = json!({"supplementalGroupsPolicy": "Strict"});
        assert_eq!(verdict(strict.clone(), &[], false).unwrap().reason, "SupplementalGroupsPolicyNotSupported");
        assert_eq!(verdict(strict, &[], true), None);
        assert_eq!(verdict(json!({"supplementalGroupsPolicy": "Merge"}), &[], false), None);
    }
}
