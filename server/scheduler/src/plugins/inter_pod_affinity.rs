//! Pods that want to be, or not to be, where certain other pods are.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use crate::affinity::{Term, Terms};
use crate::framework::{Change, MAX_SCORE, Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use crate::world::World;

const NO_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// The weight of an existing pod's required affinity terms in a score (`hardPodAffinityWeight`).
const HARD_AFFINITY_WEIGHT: i64 = 1;

pub(crate) struct InterPodAffinity;

/// (topology key, value): a domain.
type Domain = (String, String);

/// A count per domain; entries that reach zero are removed.
type Counts = HashMap<Domain, i64>;

struct Rules<'a> {
    pod: &'a Pod,
    own: Option<&'a Terms>,
    world: &'a dyn World,
    /// Domains that hold pods that match all required affinity terms.
    matched: Counts,
    /// Domains that hold what we avoid.
    avoided: Counts,
    /// Domains that avoid us.
    closed: Counts,
    scores: Counts,
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let mut rules = Rules {
            pod: &pod.pod,
            own: pod.terms.as_ref(),
            world: snapshot.world,
            matched: Counts::new(),
            avoided: Counts::new(),
            closed: Counts::new(),
            scores: Counts::new(),
        };
        for node in &snapshot.nodes {
            // If the pod has no affinity of its own, as most pods, only pods with affinity terms matter.
            let others = if rules.own.is_some() { &node.pods } else { &node.wishing };
            for other in others.values() {
                rules.count(other, node, 1);
                rules.weigh(other, node);
            }
        }
        Some(Box::new(rules))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake != Wake::NodeGone
    }
}

fn add(counts: &mut Counts, term: &Term, node: &NodeInfo, step: i64) {
    let Some(domain) = domain(term, node) else { return };
    let count = counts.entry(domain.clone()).or_default();
    *count += step;
    if *count == 0 {
        counts.remove(&domain);
    }
}

fn domain(term: &Term, node: &NodeInfo) -> Option<Domain> {
    Some((term.key.clone(), node.label(&term.key)?.to_owned()))
}

impl Rules<'_> {
    /// Adds `step` to the counts of the required terms that an existing pod matches, and of its own terms that match the incoming pod.
    fn count(&mut self, other: &PodInfo, node: &NodeInfo, step: i64) {
        if let Some(own) = self.own {
            if self.matches_all(&other.pod) {
                own.affinity.iter().for_each(|term| add(&mut self.matched, term, node, step));
            }
            for term in own.anti_affinity.iter().filter(|term| term.matches(&other.pod, self.world)) {
                add(&mut self.avoided, term, node, step);
            }
        }
        for term in other.terms.iter().flat_map(|terms| &terms.anti_affinity).filter(|term| term.matches(self.pod, self.world)) {
            add(&mut self.closed, term, node, step);
        }
    }

    /// Adds the weights of the preferred terms between an existing pod and the incoming one.
    fn weigh(&mut self, other: &PodInfo, node: &NodeInfo) {
        for (term, weight) in self.own.iter().flat_map(|own| &own.preferred).filter(|(term, _)| term.matches(&other.pod, self.world)) {
            add(&mut self.scores, term, node, *weight);
        }
        let Some(theirs) = &other.terms else { return };
        for term in theirs.affinity.iter().filter(|term| term.matches(self.pod, self.world)) {
            add(&mut self.scores, term, node, HARD_AFFINITY_WEIGHT);
        }
        for (term, weight) in theirs.preferred.iter().filter(|(term, _)| term.matches(self.pod, self.world)) {
            add(&mut self.scores, term, node, *weight);
        }
    }

    /// Whether a pod is one that all required affinity terms mean.
    fn matches_all(&self, other: &Pod) -> bool {
        let terms = self.own.map(|own| own.affinity.as_slice()).unwrap_or_default();
        !terms.is_empty() && terms.iter().all(|term| term.matches(other, self.world))
    }

    fn has_affinity_fulfilled(&self, terms: &[Term], node: &NodeInfo) -> bool {
        let domains: Option<Vec<Domain>> = terms.iter().map(|term| domain(term, node)).collect();
        // The node must have every topology key, even for the first pod of a group.
        let Some(domains) = domains else { return false };
        // A pod that matches its own affinity terms may go anywhere while no existing pod matches them.
        domains.iter().all(|domain| self.matched.contains_key(domain)) || (self.matched.is_empty() && self.matches_all(self.pod))
    }
}

impl Prepared for Rules<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        if let Some(own) = self.own {
            if !self.has_affinity_fulfilled(&own.affinity, node) {
                return Err(Refusal::lasting(NO_AFFINITY));
            }
            let avoids = |term: &Term| domain(term, node).is_some_and(|domain| self.avoided.contains_key(&domain));
            if !self.avoided.is_empty() && own.anti_affinity.iter().any(avoids) {
                return Err(Refusal::passing(ANTI_AFFINITY));
            }
        }
        if self.closed.keys().any(|(key, value)| node.label(key) == Some(value)) {
            return Err(Refusal::passing(EXISTING_ANTI_AFFINITY));
        }
        Ok(())
    }

    fn imagine(&mut self, other: &PodInfo, node: &NodeInfo, change: Change) {
        self.count(other, node, change.step());
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        if self.scores.is_empty() {
            return vec![0; nodes.len()];
        }
        let raw: Vec<i64> = nodes
            .iter()
            .map(|node| self.scores.iter().filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, weight)| *weight).sum())
            .collect();
        let (min, max) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
        raw.into_iter().map(|score| if max == min { 0 } else { MAX_SCORE * (score - min) / (max - min) }).collect()
    }
}
