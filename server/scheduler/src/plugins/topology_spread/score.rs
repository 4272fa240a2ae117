//! What the soft constraints of a pod prefer, or those that pods have by default.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use trireme_client::{Object, labels};

use super::constraint::Constraint;
use crate::framework::{MAX_SCORE, Snapshot};
use crate::node_info::NodeInfo;
use crate::world::World;

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Topology key and maximum skew of the default constraints, for pods without constraints of their own.
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)];

/// A soft constraint, with what is counted for it.
struct Soft<'a> {
    constraint: &'a Constraint<'a>,
    /// Matching pods in each domain of the nodes in question; not for hosts, which are counted one by one.
    domains: HashMap<&'a str, i64>,
    /// More domains make each pod in one of them weigh more.
    weight: f64,
}

/// Scores for `nodes`, in the same order.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub(super) fn score(pod: &Pod, snapshot: &Snapshot<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let own = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
    let constraints: Vec<Constraint<'_>> = if own.is_empty() {
        match default_selector(pod, snapshot.world) {
            Some(selector) => DEFAULTS.iter().map(|(key, skew)| Constraint::default(key, *skew, &selector)).collect(),
            None => Vec::new(),
        }
    } else {
        own.iter().filter(|one| one.when_unsatisfiable == "ScheduleAnyway").map(|one| Constraint::new(one, pod)).collect()
    };
    if constraints.is_empty() {
        return vec![0; nodes.len()];
    }
    // By default, nodes without a zone are spread over nevertheless.
    let needs_all_keys = !own.is_empty();
    let counts = |node: &NodeInfo, all: &[Constraint<'_>]| !needs_all_keys || all.iter().all(|one| node.label(one.key).is_some());
    let eligible: Vec<bool> = nodes.iter().map(|node| counts(node, &constraints)).collect();
    let asked: Vec<&NodeInfo> = nodes.iter().zip(&eligible).filter(|(_, eligible)| **eligible).map(|(node, _)| *node).collect();
    let counted = || snapshot.nodes.iter().copied().filter(|node| counts(node, &constraints));
    let soft: Vec<Soft<'_>> = constraints.iter().map(|one| Soft::new(one, pod, counted(), &asked)).collect();
    let raw: Vec<Option<i64>> = nodes
        .iter()
        .zip(&eligible)
        .map(|(node, eligible)| eligible.then(|| soft.iter().filter_map(|one| one.of(node, pod)).sum::<f64>().round() as i64))
        .collect();
    stretch(&raw)
}

impl<'a> Soft<'a> {
    #[allow(clippy::cast_precision_loss)]
    fn new(constraint: &'a Constraint<'a>, pod: &Pod, counted: impl Iterator<Item = &'a NodeInfo>, asked: &[&'a NodeInfo]) -> Self {
        let mut domains: HashMap<&str, i64> = HashMap::new();
        if constraint.key != HOSTNAME {
            let mut has_domains = false;
            for node in asked {
                let domain = node.label(constraint.key);
                has_domains |= domain.is_some();
                domains.entry(domain.unwrap_or_default()).or_default();
            }
            // The counts are for nodes that have the key: without such, not all nodes of the cluster are looked at.
            for node in counted.take_while(|_| has_domains) {
                if let Some(count) = node.label(constraint.key).and_then(|domain| domains.get_mut(domain))
                    && constraint.includes(pod, node)
                {
                    *count += constraint.count(node, pod);
                }
            }
        }
        let size = if constraint.key == HOSTNAME { asked.len() } else { domains.len() };
        Self { constraint, domains, weight: (size as f64 + 2.0).ln() }
    }

    #[allow(clippy::cast_precision_loss)]
    fn of(&self, node: &NodeInfo, pod: &Pod) -> Option<f64> {
        let domain = node.label(self.constraint.key)?;
        let here = match self.constraint.key {
            HOSTNAME => self.constraint.count(node, pod),
            _ => self.domains.get(domain).copied().unwrap_or(0),
        };
        Some(here as f64 * self.weight + (self.constraint.max_skew - 1) as f64)
    }
}

/// The fewest pods are best; what lacks a key is worst.
fn stretch(raw: &[Option<i64>]) -> Vec<i64> {
    let known = || raw.iter().flatten().copied();
    let (min, max) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let one = |score: &Option<i64>| match score {
        None => 0,
        Some(_) if max == 0 => MAX_SCORE,
        Some(score) => MAX_SCORE * (max + min - score) / max,
    };
    raw.iter().map(one).collect()
}

/// What the pod's Services and its workload select, all of it together.
fn default_selector(pod: &Pod, world: &dyn World) -> Option<LabelSelector> {
    let mut selector = LabelSelector::default();
    let mut require = |map: &labels::Labels| {
        let all = map.iter().map(|(key, value)| (key.clone(), value.clone()));
        selector.match_labels.get_or_insert_default().extend(all);
    };
    for service in world.services(pod.namespace()) {
        let selects = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        if let Some(map) = selects.filter(|map| labels::matches_map(map, pod.metadata.labels.as_ref())) {
            require(map);
        }
    }
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    if let Some(workload) = owner.and_then(|owner| world.workload_selector(pod.namespace(), owner)) {
        workload.match_labels.iter().for_each(require);
        selector.match_expressions.get_or_insert_default().extend(workload.match_expressions.into_iter().flatten());
    }
    (!labels::is_empty(&selector)).then_some(selector)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use crate::fixtures::{Cluster, node, object, pod};

    fn scores(cluster: &Cluster, pod: &Arc<Pod>) -> Vec<i64> {
        let snapshot = cluster.cache.snapshot(&cluster.world);
        super::score(pod, &snapshot, &snapshot.nodes)
    }

    fn zoned(name: &str, zone: &str) -> Arc<k8s_openapi::api::core::v1::Node> {
        let labels: Value = if zone.is_empty() { json!({}) } else { json!({"topology.kubernetes.io/zone": zone}) };
        node(name, "8", json!({"metadata": {"labels": labels}}))
    }

    #[test]
    fn pods_of_a_service_or_workload_are_spread_by_default() {
        let mut cluster = Cluster::new(vec![zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), zoned("none", "")]);
        cluster.run(&pod("p1", "1", json!({})), "a1");
        cluster.run(&pod("p2", "1", json!({})), "a1");
        cluster.run(&pod("p3", "1", json!({})), "b1");
        cluster.run(&pod("leaving", "1", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})), "b1");
        let web = pod("web", "1", json!({}));
        assert_eq!(scores(&cluster, &web), [0, 0, 0, 0], "it belongs to nothing");
        cluster.world.services = vec![object(json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {"selector": {"app": "web"}}}))];
        let by_service = scores(&cluster, &web);
        let [a1, a2, b1, none] = by_service[..] else { panic!("four nodes") };
        assert!(a1 < a2 && a2 < none && a1 < b1 && b1 < none, "{by_service:?}: hosts and zones with fewer pods are better");

        // The same by the selector of what owns the pod, and nothing for a pod with constraints of its own.
        cluster.world.services.clear();
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]});
        cluster.world.workloads.insert("rs".to_owned(), serde_json::from_value(selector).unwrap());
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true});
        let owned = pod("web", "1", json!({"metadata": {"ownerReferences": [owner]}}));
        assert_eq!(scores(&cluster, &owned), by_service);
        let own = json!([{"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "DoNotSchedule"}]);
        let mut constrained = serde_json::to_value(&*owned).unwrap();
        constrained["spec"]["topologySpreadConstraints"] = own;
        assert_eq!(scores(&cluster, &object(constrained)), [0, 0, 0, 0]);
    }

    #[test]
    fn soft_constraints_prefer_the_emptier_domain_and_last_what_has_none() {
        let mut cluster = Cluster::new(vec![zoned("a1", "a"), zoned("b1", "b"), zoned("none", "")]);
        cluster.run(&pod("p1", "1", json!({})), "a1");
        let soft = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "web"}}}]}});
        assert_eq!(scores(&cluster, &pod("p", "1", soft)), [0, 100, 0]);
    }
}
