//! Where a pod may run: node selectors, required node affinity, taints and tolerations, as the scheduler and the controllers
//! judge them. No I/O.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/> and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use crate::Object;

/// The field by which a term may select a node.
const NAME_FIELD: &str = "metadata.name";

/// Whether a pod's node selector and its required affinity accept a node.
#[must_use]
pub fn accepts(spec: &PodSpec, node: &Node) -> bool {
    if !spec.node_selector.iter().flatten().all(|(key, value)| label(node, key) == Some(value.as_str())) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    // Terms are alternatives; no term at all accepts nothing.
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// Whether a term selects a node. One without a requirement selects none.
#[must_use]
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|one| matches(one, label(node, &one.key)))
        && fields.iter().all(|one| one.key == NAME_FIELD && matches(one, Some(node.name())))
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|known| known == value);
    let compare = || -> Option<Ordering> {
        let wanted: i64 = values.first()?.parse().ok()?;
        let found: i64 = value?.parse().ok()?;
        Some(found.cmp(&wanted))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => value.is_none_or(|value| !listed(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(Ordering::is_gt),
        "Lt" => compare().is_some_and(Ordering::is_lt),
        _ => false,
    }
}

/// Whether a toleration covers a taint.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Gt" => compare(toleration, taint).is_some_and(Ordering::is_lt),
        "Lt" => compare(toleration, taint).is_some_and(Ordering::is_gt),
        _ => false,
    }
}

/// Whether a node has a taint with one of these effects that no toleration covers.
#[must_use]
pub fn has_untolerated_taint(node: &Node, tolerations: &[Toleration], effects: &[&str]) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut counted = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    counted.any(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Both values as whole numbers: the toleration's against the taint's.
fn compare(toleration: &Toleration, taint: &Taint) -> Option<Ordering> {
    let number = |text: &Option<String>| text.as_deref()?.parse::<i64>().ok();
    Some(number(&toleration.value)?.cmp(&number(&taint.value)?))
}
