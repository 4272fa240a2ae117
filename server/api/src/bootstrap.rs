//! The objects besides RBAC that every cluster starts with: namespaces, priority classes, API priority and fairness.
//!
//! Owns the facts; the API server writes them at start and repairs those marked `apf.kubernetes.io/autoupdate-spec`.
//! Upstream: <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults>.

use serde_json::{Value, json};

/// The namespaces that always exist and may not be deleted (kube-node-lease may).
pub const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// default, kube-node-lease, kube-public and kube-system.
pub fn namespaces() -> Vec<Value> {
    NAMESPACES
        .iter()
        .map(|name| {
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        })
        .collect()
}

/// system-cluster-critical and system-node-critical.
pub fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name, "generation": 1},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        })
    };
    vec![
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        class("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
    ]
}

/// A limited priority level: name, shares, lendable percent, and queues, hand size, queue length (none: reject).
type Level = (&'static str, i64, i64, Option<(i64, i64, i64)>);

const LEVELS: &[Level] = &[
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

fn fairness(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec, "status": {},
    })
}

/// The mandatory and suggested PriorityLevelConfigurations.
pub fn priority_levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }),
        };
        let spec = json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable,
        }});
        fairness("PriorityLevelConfiguration", name, spec)
    });
    std::iter::once(fairness("PriorityLevelConfiguration", "exempt", exempt)).chain(limited).collect()
}

/// What a flow schema's rule covers.
enum Scope {
    All,
    Resources,
    Urls,
}

/// A flow schema: name, level, precedence, distinguisher, subjects (`u:`, `g:`, or `s:` = all of kube-system), scope.
type Flow = (&'static str, &'static str, i64, &'static str, &'static [&'static str], Scope);

const EVERYONE: &[&str] = &["g:system:unauthenticated", "g:system:authenticated"];

const FLOWS: &[Flow] = &[
    ("catch-all", "catch-all", 10000, "ByUser", EVERYONE, Scope::All),
    ("exempt", "exempt", 1, "", &["g:system:masters"], Scope::All),
    ("global-default", "global-default", 9900, "ByUser", EVERYONE, Scope::All),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", &["u:system:kube-controller-manager"], Scope::All),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", &["u:system:kube-scheduler"], Scope::All),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &["s:*"], Scope::All),
    ("probes", "exempt", 2, "", EVERYONE, Scope::Urls),
    ("service-accounts", "workload-low", 9000, "ByUser", &["g:system:serviceaccounts"], Scope::All),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &["u:system:kube-controller-manager", "u:system:kube-scheduler", "s:*"],
        Scope::Resources,
    ),
    ("system-node-high", "node-high", 400, "ByUser", &["g:system:nodes"], Scope::Resources),
    ("system-nodes", "system", 500, "ByUser", &["g:system:nodes"], Scope::All),
];

/// The mandatory and suggested FlowSchemas, without status: whether one dangles is the controller's to say.
pub fn flow_schemas() -> Vec<Value> {
    FLOWS.iter().map(flow_schema).collect()
}

fn flow_schema((name, level, precedence, distinguisher, subjects, scope): &Flow) -> Value {
    let mut rule = json!({"subjects": subjects.iter().map(|subject| flow_subject(subject)).collect::<Vec<_>>()});
    match scope {
        Scope::All => {
            rule["resourceRules"] = json!([{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }]);
            rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        }
        Scope::Urls => {
            rule["nonResourceRules"] = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
        }
        Scope::Resources => {
            let leases = |verbs: &[&str]| {
                json!({"verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                       "namespaces": ["*"]})
            };
            rule["resourceRules"] = if *name == "system-node-high" {
                json!([
                    {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": true,
                     "namespaces": ["*"]},
                    leases(&["*"]),
                ])
            } else {
                json!([leases(&["get", "create", "update"])])
            };
        }
    }
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    fairness("FlowSchema", name, spec)
}

fn flow_subject(subject: &str) -> Value {
    let (kind, name) = subject.split_once(':').unwrap_or(("u", subject));
    match kind {
        "g" => json!({"kind": "Group", "group": {"name": name}}),
        "s" => json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}),
        _ => json!({"kind": "User", "user": {"name": name}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_schema_points_at_an_existing_level() {
        let levels = priority_levels();
        for schema in flow_schemas() {
            let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
            assert!(levels.iter().any(|known| known["metadata"]["name"] == *level), "{level}");
        }
        assert_eq!(levels.len(), 8);
    }
}
