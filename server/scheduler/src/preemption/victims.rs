//! The fewest pods that have to leave one node. No I/O.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::budgets;
use crate::cycle::Cycle;
use crate::framework::{Change, Refusal};
use crate::node_info::{NodeInfo, PodInfo};

/// What it takes to make room on a node.
#[derive(Clone, Debug)]
pub(crate) struct Victims {
    pub(crate) node: String,
    /// Who leaves, most important first; never empty.
    pub(crate) pods: Vec<Arc<PodInfo>>,
    /// How many of them break a disruption budget.
    pub(crate) violations: usize,
}

/// Orders pods by importance, most important first: by priority, then those that have run longest.
pub(crate) fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, i64, String) {
    (Reverse(pod.priority), pod.started_secs(), pod.uid().to_owned())
}

/// Lets all pods of lower priority leave, then puts back those that are not in the way: first those whose leaving breaks
/// a budget, and of these and of the rest the most important first.
pub(crate) fn on(cycle: &mut Cycle<'_>, node: &NodeInfo, known: &[Arc<PodDisruptionBudget>]) -> Result<Victims, Refusal> {
    let priority = cycle.pod.priority;
    let mut lower: Vec<Arc<PodInfo>> = node.pods.values().filter(|other| other.priority < priority).cloned().collect();
    if lower.is_empty() {
        return Err(Refusal::lasting("No preemption victims found for incoming pod"));
    }
    let mut emptier = node.clone();
    lower.iter().for_each(|pod| cycle.imagine(&mut emptier, pod, Change::Goes));
    let outcome = match cycle.refusal(&emptier) {
        Some((_, refusal)) => Err((lower, refusal)),
        None => {
            lower.sort_by_cached_key(importance);
            let (violating, harmless) = budgets::split(lower, known);
            let mut gone = Vec::new();
            violating.into_iter().for_each(|pod| gone.extend(let_back(cycle, &mut emptier, pod)));
            let violations = gone.len();
            harmless.into_iter().for_each(|pod| gone.extend(let_back(cycle, &mut emptier, pod)));
            Ok((gone, violations))
        }
    };
    // The simulated removals are undone: the next node is judged with the real state.
    let (mut gone, result) = match outcome {
        Err((gone, refusal)) => (gone, Err(refusal)),
        Ok((gone, violations)) => (gone, Ok(violations)),
    };
    gone.iter().for_each(|pod| cycle.imagine(&mut emptier, pod, Change::Comes));
    let violations = result?;
    if gone.is_empty() {
        return Err(Refusal::lasting("No preemption victims found for incoming pod"));
    }
    gone.sort_by_cached_key(importance);
    Ok(Victims { node: node.name().to_owned(), pods: gone, violations })
}

/// Lets the pod back if there is room for it too; otherwise it is a victim.
fn let_back(cycle: &mut Cycle<'_>, node: &mut NodeInfo, pod: Arc<PodInfo>) -> Option<Arc<PodInfo>> {
    cycle.imagine(node, &pod, Change::Comes);
    cycle.refusal(node)?;
    cycle.imagine(node, &pod, Change::Goes);
    Some(pod)
}
