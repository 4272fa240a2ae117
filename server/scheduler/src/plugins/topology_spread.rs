//! Spreads pods that match a selector evenly over zones, nodes or other domains.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use trireme_client::{Object, labels};

use super::node_affinity;
use super::taint_toleration::tolerates;
use crate::framework::{MAX_SCORE, Plugin, Prepared, Reason, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};

const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub(crate) struct PodTopologySpread;

struct Spread<'a> {
    pod: &'a Pod,
    hard: Vec<Constraint<'a>>,
    soft: Vec<Constraint<'a>>,
}

struct Constraint<'a> {
    spec: &'a TopologySpreadConstraint,
    selector: LabelSelector,
    /// Matching pods in each domain that counts.
    domains: BTreeMap<String, i64>,
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a> {
        let constraints = pod.pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
        let of = |when: &str| -> Vec<Constraint<'a>> {
            let kind: Vec<&'a TopologySpreadConstraint> = constraints.iter().filter(|one| one.when_unsatisfiable == when).collect();
            // A node counts only if it has the keys of all constraints.
            let keys: Vec<&str> = kind.iter().map(|one| one.topology_key.as_str()).collect();
            kind.into_iter().map(|spec| Constraint::new(spec, &pod.pod, snapshot, &keys)).collect()
        };
        Box::new(Spread { pod: &pod.pod, hard: of("DoNotSchedule"), soft: of("ScheduleAnyway") })
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        true
    }
}

impl<'a> Constraint<'a> {
    fn new(spec: &'a TopologySpreadConstraint, pod: &Pod, snapshot: &Snapshot<'_>, keys: &[&str]) -> Self {
        let mut selector = spec.label_selector.clone().unwrap_or_default();
        for key in spec.match_label_keys.iter().flatten() {
            if let Some(value) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) {
                selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
            }
        }
        let mut domains: BTreeMap<String, i64> = BTreeMap::new();
        for node in &snapshot.nodes {
            let Some(domain) = node.label(&spec.topology_key) else { continue };
            if keys.iter().any(|key| node.label(key).is_none()) || !is_included(spec, pod, node) {
                continue;
            }
            let matching = node.pods.values().filter(|other| {
                other.pod.namespace() == pod.namespace()
                    && other.pod.metadata.deletion_timestamp.is_none()
                    && selects(spec, &selector, other.pod.metadata.labels.as_ref())
            });
            *domains.entry(domain.to_owned()).or_default() += i64::try_from(matching.count()).unwrap_or(i64::MAX);
        }
        Self { spec, selector, domains }
    }

    /// The fewest pods in any domain; zero if there are fewer domains than wanted.
    fn minimum(&self) -> i64 {
        let wanted = usize::try_from(self.spec.min_domains.unwrap_or(1)).unwrap_or(1);
        if self.domains.len() < wanted { 0 } else { self.domains.values().copied().min().unwrap_or(0) }
    }
}

/// A constraint without a selector matches nothing.
fn selects(spec: &TopologySpreadConstraint, selector: &LabelSelector, labels: Option<&labels::Labels>) -> bool {
    spec.label_selector.is_some() && labels::matches(selector, labels)
}

/// Whether a node's pods count at all.
fn is_included(spec: &TopologySpreadConstraint, pod: &Pod, node: &NodeInfo) -> bool {
    let affinity = spec.node_affinity_policy.as_deref().unwrap_or("Honor") == "Honor";
    if affinity && !node_affinity::accepts(pod, node) {
        return false;
    }
    if spec.node_taints_policy.as_deref().unwrap_or("Ignore") == "Honor" {
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let taints = node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        return taints
            .iter()
            .filter(|taint| taint.effect != "PreferNoSchedule")
            .all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)));
    }
    true
}

impl Prepared for Spread<'_> {
    fn filter(&self, node: &NodeInfo) -> Vec<Reason> {
        for constraint in &self.hard {
            let Some(domain) = node.label(&constraint.spec.topology_key) else { return vec![MISSING_LABEL.into()] };
            let own = selects(constraint.spec, &constraint.selector, self.pod.metadata.labels.as_ref());
            let here = constraint.domains.get(domain).copied().unwrap_or(0);
            if here + i64::from(own) - constraint.minimum() > i64::from(constraint.spec.max_skew) {
                return vec![MISMATCH.into()];
            }
        }
        Vec::new()
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        if self.soft.is_empty() {
            return vec![0; nodes.len()];
        }
        let raw: Vec<Option<f64>> = nodes
            .iter()
            .map(|node| {
                self.soft.iter().try_fold(0.0, |sum, constraint| {
                    let domain = node.label(&constraint.spec.topology_key)?;
                    let here = constraint.domains.get(domain).copied().unwrap_or(0);
                    // More domains make each pod in one of them weigh more.
                    let weight = (constraint.domains.len() as f64 + 2.0).ln();
                    Some(sum + here as f64 * weight + f64::from(constraint.spec.max_skew - 1))
                })
            })
            .collect();
        let known: Vec<i64> = raw.iter().flatten().map(|score| score.round() as i64).collect();
        let (min, max) = (known.iter().copied().min().unwrap_or(0), known.iter().copied().max().unwrap_or(0));
        raw.into_iter()
            .map(|score| match score {
                None => 0,
                Some(_) if max == 0 => MAX_SCORE,
                Some(score) => MAX_SCORE * (max + min - score.round() as i64) / max,
            })
            .collect()
    }
}
