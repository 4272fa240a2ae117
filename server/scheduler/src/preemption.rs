//! Makes room for a pod that fits nowhere: which pods of lower priority would have to leave which node. No I/O.
//!
//! Owns the choice of victims: [`victims`] finds the fewest on one node, [`choice`] compares nodes, [`budgets`] finds the pods whose
//! preemption violates a disruption budget. Must not: delete anything (the shell does), or preempt a pod of equal or higher priority.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/#preemption> and upstream's
//! plugin DefaultPreemption.

mod budgets;
mod choice;
#[cfg(test)]
mod tests;
mod victims;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cycle::Cycle;
use crate::node_info::PodInfo;
use crate::unfit::Unfit;
use victims::Victims;

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
/// At least so many nodes that would do are compared, and at least this share of those that may do.
const MIN_CANDIDATES: usize = 100;
const MIN_CANDIDATES_PERCENT: usize = 10;

/// What can be done for a pod that fits nowhere.
#[derive(Clone, Debug)]
pub(crate) enum Preemption {
    /// These leave the node, most important first; the pod waits for their place.
    Evict { node: String, victims: Vec<Arc<PodInfo>> },
    /// The pod must not preempt others (now). Its nominated node, if any, stays.
    NotEligible(String),
    /// No eviction helps.
    Hopeless(String),
}

/// Looks for victims after `cycle` found no node for its pod, because of `unfit`. `start` says at which node the search begins.
pub(crate) fn preempt(cycle: &mut Cycle<'_>, unfit: &Unfit, start: u64) -> Preemption {
    if let Err(reason) = eligible(cycle, unfit) {
        return Preemption::NotEligible(format!("preemption: {reason}"));
    }
    let budgets = cycle.snapshot.world.budgets();
    let nodes: Vec<_> = unfit.passing().filter_map(|name| cycle.snapshot.node(name)).collect();
    let wanted = wanted(nodes.len());
    let start = if nodes.is_empty() { 0 } else { usize::try_from(start % nodes.len() as u64).unwrap_or(0) };
    let (before, after) = nodes.split_at(start);
    let mut candidates: Vec<Victims> = Vec::new();
    let mut hopeless = Unfit { nodes: unfit.nodes, others: Some(NOT_HELPFUL.into()), ..Unfit::default() };
    for node in after.iter().chain(before) {
        match victims::on(cycle, node, &budgets) {
            Ok(victims) => candidates.push(victims),
            Err(refusal) => {
                hopeless.refused.insert(node.name().to_owned(), refusal);
            }
        }
        if candidates.len() >= wanted && candidates.iter().any(|candidate| candidate.violations == 0) {
            break;
        }
    }
    match choice::best(candidates) {
        Some(chosen) => Preemption::Evict { node: chosen.node, victims: chosen.pods },
        None => Preemption::Hopeless(format!("preemption: {}", hopeless.message())),
    }
}

/// How many candidates are enough.
fn wanted(nodes: usize) -> usize {
    (nodes * MIN_CANDIDATES_PERCENT / 100).max(MIN_CANDIDATES).min(nodes)
}

/// Whether the pod may push others out. It may not while those that it pushed out before are still leaving.
fn eligible(cycle: &Cycle<'_>, unfit: &Unfit) -> Result<(), &'static str> {
    let policy = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let Some(name) = cycle.snapshot.nominated.node_of(cycle.pod.uid()) else { return Ok(()) };
    if unfit.is_lasting(name) {
        return Ok(());
    }
    let Some(node) = cycle.snapshot.node(name) else { return Ok(()) };
    let leaving = |other: &Arc<PodInfo>| {
        other.priority < cycle.pod.priority && (cycle.snapshot.doomed.contains(other.uid()) || is_preempted(&other.pod))
    };
    if node.pods.values().any(leaving) {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

/// Whether the pod is leaving because a scheduler wanted its place.
fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let target = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget");
    pod.metadata.deletion_timestamp.is_some()
        && target.is_some_and(|target| target.status == "True" && target.reason.as_deref() == Some("PreemptionByScheduler"))
}
