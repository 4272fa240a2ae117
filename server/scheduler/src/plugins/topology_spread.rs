//! Spreads pods that match a selector evenly over zones, nodes or other domains.
//!
//! [`constraint`] says which pods and nodes a constraint counts, [`score`] prefers what the soft ones ask for, also those that
//! every pod of a Service or workload has by default.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>.

mod constraint;
mod score;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::framework::{Change, Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};
use constraint::Constraint;

const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub(crate) struct PodTopologySpread;

struct Spread<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot<'a>,
    hard: Vec<Hard<'a>>,
}

/// A constraint that has to hold, with what is counted for it.
struct Hard<'a> {
    constraint: Constraint<'a>,
    /// Matching pods in each domain that counts.
    domains: BTreeMap<String, i64>,
    /// How many domains have so many pods: its first key is the minimum.
    levels: BTreeMap<i64, usize>,
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let all: &'a [TopologySpreadConstraint] =
            pod.pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
        let constraints = all.iter().filter(|one| one.when_unsatisfiable == "DoNotSchedule");
        let hard = constraints.map(|spec| Hard::new(Constraint::new(spec, &pod.pod))).collect();
        let mut spread = Spread { pod, snapshot, hard };
        if !spread.hard.is_empty() {
            snapshot.nodes.iter().for_each(|node| spread.count_node(node));
        }
        Some(Box::new(spread))
    }

    fn weight(&self) -> i64 {
        2
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        true
    }
}

impl<'a> Hard<'a> {
    fn new(constraint: Constraint<'a>) -> Self {
        Self { constraint, domains: BTreeMap::new(), levels: BTreeMap::new() }
    }

    /// Adds pods to a domain, which exists from now on.
    fn add(&mut self, domain: &str, pods: i64) {
        let known = self.domains.get(domain).copied();
        if let Some(level) = known
            && let Some(count) = self.levels.get_mut(&level)
        {
            *count -= 1;
            if *count == 0 {
                self.levels.remove(&level);
            }
        }
        let level = known.unwrap_or(0) + pods;
        self.domains.insert(domain.to_owned(), level);
        *self.levels.entry(level).or_default() += 1;
    }

    /// The fewest pods in any domain; zero if there are fewer domains than wanted.
    fn minimum(&self) -> i64 {
        if self.domains.len() < self.constraint.min_domains { 0 } else { self.levels.keys().next().copied().unwrap_or(0) }
    }
}

impl Spread<'_> {
    /// A node counts only if it has the keys of all constraints.
    fn has_all_keys(&self, node: &NodeInfo) -> bool {
        self.hard.iter().all(|hard| node.label(hard.constraint.key).is_some())
    }

    fn count_node(&mut self, node: &NodeInfo) {
        if !self.has_all_keys(node) {
            return;
        }
        for hard in &mut self.hard {
            if let Some(domain) = node.label(hard.constraint.key)
                && hard.constraint.includes(&self.pod.pod, node)
            {
                hard.add(domain, hard.constraint.count(node, &self.pod.pod));
            }
        }
    }
}

impl Prepared for Spread<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        for hard in &self.hard {
            let Some(domain) = node.label(hard.constraint.key) else { return Err(Refusal::lasting(MISSING_LABEL)) };
            let own = i64::from(hard.constraint.selects(&self.pod.pod));
            let here = hard.domains.get(domain).copied().unwrap_or(0);
            if here + own - hard.minimum() > hard.constraint.max_skew {
                return Err(Refusal::passing(MISMATCH));
            }
        }
        Ok(())
    }

    fn imagine(&mut self, other: &PodInfo, node: &NodeInfo, change: Change) {
        if self.hard.is_empty() || !self.has_all_keys(node) {
            return;
        }
        for hard in &mut self.hard {
            if let Some(domain) = node.label(hard.constraint.key)
                && hard.constraint.counts(&other.pod, &self.pod.pod)
                && hard.constraint.includes(&self.pod.pod, node)
            {
                hard.add(domain, change.step());
            }
        }
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        score::score(&self.pod.pod, self.snapshot, nodes)
    }
}
