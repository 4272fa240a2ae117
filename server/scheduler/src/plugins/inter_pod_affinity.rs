//! Pods that want to be, or not to be, where certain other pods are.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use trireme_client::{Object, labels};

use crate::framework::{MAX_SCORE, Plugin, Prepared, Reason, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};

const NO_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// What a required affinity of a pod that is there counts in a score.
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub(crate) struct InterPodAffinity;

/// (topology key, value): a domain.
type Domain = (String, String);

#[derive(Default)]
struct Rules {
    affinity: Vec<Term>,
    anti_affinity: Vec<Term>,
    /// Domains with a match, for each required affinity term.
    matched: Vec<HashMap<Domain, i64>>,
    /// Domains that hold what we avoid.
    avoided: HashMap<Domain, i64>,
    /// Domains that avoid us.
    closed: HashMap<Domain, i64>,
    scores: HashMap<Domain, i64>,
    /// The pod would satisfy its own affinity: the first of its kind may go anywhere.
    first_of_kind: bool,
}

/// A term with its selector completed and its namespaces known.
struct Term {
    key: String,
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
}

impl Term {
    fn new(term: &PodAffinityTerm, owner: &Pod) -> Self {
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            let label = |key: &String| owner.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
            let mut require = |key: &String, operator: &str| {
                if let Some(value) = label(key) {
                    selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value]),
                    });
                }
            };
            term.match_label_keys.iter().flatten().for_each(|key| require(key, "In"));
            term.mismatch_label_keys.iter().flatten().for_each(|key| require(key, "NotIn"));
        }
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(owner.namespace().to_owned());
        }
        Self { key: term.topology_key.clone(), selector, namespaces, namespace_selector: term.namespace_selector.clone() }
    }

    fn matches(&self, pod: &Pod, namespaces: &HashMap<String, Arc<Namespace>>) -> bool {
        let Some(selector) = &self.selector else { return false };
        let in_scope = self.namespaces.iter().any(|name| name == pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                let namespace = namespaces.get(pod.namespace());
                labels::is_empty(selector) || namespace.is_some_and(|known| labels::matches(selector, known.metadata.labels.as_ref()))
            });
        in_scope && labels::matches(selector, pod.metadata.labels.as_ref())
    }

    fn domain(&self, node: &NodeInfo) -> Option<Domain> {
        Some((self.key.clone(), node.label(&self.key)?.to_owned()))
    }
}

struct Terms {
    affinity: Vec<Term>,
    anti_affinity: Vec<Term>,
    /// Preferred, with weight; anti-affinity's are negative.
    preferred: Vec<(Term, i64)>,
}

impl Terms {
    /// `None` if the pod has none, as most have.
    fn of(pod: &Pod) -> Option<Self> {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
        if affinity.pod_affinity.is_none() && affinity.pod_anti_affinity.is_none() {
            return None;
        }
        let term = |term: &PodAffinityTerm| Term::new(term, pod);
        let near = affinity.pod_affinity.as_ref();
        let far = affinity.pod_anti_affinity.as_ref();
        let required_near = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_deref());
        let required_far = far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_deref());
        let preferred_near = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_deref());
        let preferred_far = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_deref());
        let near = preferred_near.into_iter().flatten().map(|one| (term(&one.pod_affinity_term), i64::from(one.weight)));
        let far = preferred_far.into_iter().flatten().map(|one| (term(&one.pod_affinity_term), -i64::from(one.weight)));
        Some(Self {
            affinity: required_near.into_iter().flatten().map(term).collect(),
            anti_affinity: required_far.into_iter().flatten().map(term).collect(),
            preferred: near.chain(far).collect(),
        })
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a> {
        let own = Terms::of(&pod.pod);
        let mut rules = Rules::default();
        let own = own.unwrap_or(Terms { affinity: Vec::new(), anti_affinity: Vec::new(), preferred: Vec::new() });
        rules.matched = own.affinity.iter().map(|_| HashMap::new()).collect();
        let wants = !(own.affinity.is_empty() && own.anti_affinity.is_empty() && own.preferred.is_empty());
        for node in &snapshot.nodes {
            for other in node.pods.values() {
                if wants {
                    look_at(&own, &mut rules, node, &other.pod, &snapshot.namespaces);
                }
                if let Some(theirs) = Terms::of(&other.pod) {
                    look_back(&theirs, &mut rules, node, &pod.pod, &snapshot.namespaces);
                }
            }
        }
        rules.first_of_kind = own.affinity.iter().all(|term| term.matches(&pod.pod, &snapshot.namespaces));
        rules.affinity = own.affinity;
        rules.anti_affinity = own.anti_affinity;
        Box::new(rules)
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        true
    }
}

fn count(domains: &mut HashMap<Domain, i64>, domain: Option<Domain>, weight: i64) {
    if let Some(domain) = domain {
        *domains.entry(domain).or_default() += weight;
    }
}

/// What a pod that is there means to our terms.
fn look_at(own: &Terms, rules: &mut Rules, node: &NodeInfo, other: &Pod, namespaces: &HashMap<String, Arc<Namespace>>) {
    for (term, matched) in own.affinity.iter().zip(&mut rules.matched) {
        if term.matches(other, namespaces) {
            count(matched, term.domain(node), 1);
        }
    }
    for term in own.anti_affinity.iter().filter(|term| term.matches(other, namespaces)) {
        count(&mut rules.avoided, term.domain(node), 1);
    }
    for (term, weight) in own.preferred.iter().filter(|(term, _)| term.matches(other, namespaces)) {
        count(&mut rules.scores, term.domain(node), *weight);
    }
}

/// What we mean to the terms of a pod that is there.
fn look_back(theirs: &Terms, rules: &mut Rules, node: &NodeInfo, pod: &Pod, namespaces: &HashMap<String, Arc<Namespace>>) {
    for term in theirs.anti_affinity.iter().filter(|term| term.matches(pod, namespaces)) {
        count(&mut rules.closed, term.domain(node), 1);
    }
    for term in theirs.affinity.iter().filter(|term| term.matches(pod, namespaces)) {
        count(&mut rules.scores, term.domain(node), HARD_AFFINITY_WEIGHT);
    }
    for (term, weight) in theirs.preferred.iter().filter(|(term, _)| term.matches(pod, namespaces)) {
        count(&mut rules.scores, term.domain(node), *weight);
    }
}

impl Prepared for Rules {
    fn filter(&self, node: &NodeInfo) -> Vec<Reason> {
        let all_keys = self.affinity.iter().all(|term| node.label(&term.key).is_some());
        let all_match = self
            .affinity
            .iter()
            .zip(&self.matched)
            .all(|(term, matched)| term.domain(node).is_some_and(|domain| matched.contains_key(&domain)));
        let nobody_yet = self.matched.iter().all(HashMap::is_empty);
        let accepted = all_match || (all_keys && nobody_yet && self.first_of_kind);
        if !self.affinity.is_empty() && !accepted {
            return vec![NO_AFFINITY.into()];
        }
        let avoids = |term: &Term| term.domain(node).is_some_and(|domain| self.avoided.contains_key(&domain));
        if self.anti_affinity.iter().any(avoids) {
            return vec![ANTI_AFFINITY.into()];
        }
        if self.closed.keys().any(|(key, value)| node.label(key) == Some(value)) {
            return vec![EXISTING_ANTI_AFFINITY.into()];
        }
        Vec::new()
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let raw: Vec<i64> = nodes
            .iter()
            .map(|node| self.scores.iter().filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, weight)| *weight).sum())
            .collect();
        let (min, max) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
        raw.into_iter().map(|score| if max == min { 0 } else { MAX_SCORE * (score - min) / (max - min) }).collect()
    }
}
