//! `nodeSelector` and node affinity, required and preferred.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>.

use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::framework::{Plugin, Prepared, Reason, Snapshot, Wake, normalize};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct NodeAffinity;
struct Wanted<'a>(&'a Pod);

fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether a pod's required node selector and affinity accept a node.
pub(crate) fn accepts(pod: &Pod, node: &NodeInfo) -> bool {
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    if !selector.into_iter().flatten().all(|(key, value)| node.label(key) == Some(value)) {
        return false;
    }
    let required = affinity(pod).and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    // Terms are alternatives; no term at all accepts nothing.
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|one| matches(one, node.label(&one.key)))
        && fields.iter().all(|one| one.key == "metadata.name" && matches(one, Some(node.name())))
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|known| known == value);
    let compare = || -> Option<std::cmp::Ordering> {
        let wanted: i64 = values.first()?.parse().ok()?;
        let found: i64 = value?.parse().ok()?;
        Some(found.cmp(&wanted))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => value.is_none_or(|value| !listed(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|order| order.is_gt()),
        "Lt" => compare().is_some_and(|order| order.is_lt()),
        _ => false,
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a> {
        Box::new(Wanted(&pod.pod))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake == Wake::NodeChanged
    }
}

impl Prepared for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Vec<Reason> {
        if accepts(self.0, node) { Vec::new() } else { vec!["node(s) didn't match Pod's node affinity/selector".into()] }
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let preferred = affinity(self.0)
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default();
        let sum = |node: &&NodeInfo| {
            preferred.iter().filter(|term| term_matches(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
        };
        normalize(nodes.iter().map(sum).collect(), false)
    }
}
