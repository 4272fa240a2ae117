//! Chooses the node on which pods are preempted. No I/O.

use std::cmp::Reverse;

use super::victims::Victims;

/// Least harm first: the fewest broken budgets, the least important most important victim, the smallest sum of priorities,
/// the fewest victims, and of the most important victims the one that began last. The first of equals.
pub(crate) fn best(candidates: Vec<Victims>) -> Option<Victims> {
    candidates.into_iter().min_by_key(harm)
}

fn harm(victims: &Victims) -> (usize, i32, i64, usize, Reverse<i64>) {
    let highest = victims.pods.iter().map(|pod| pod.priority).max().unwrap_or(i32::MIN);
    // Shifted so that each victim adds to the sum, whatever its sign.
    let sum = victims.pods.iter().map(|pod| i64::from(pod.priority) - i64::from(i32::MIN)).sum();
    let began = victims.pods.iter().filter(|pod| pod.priority == highest).map(|pod| pod.started_secs()).min();
    (victims.violations, highest, sum, victims.pods.len(), Reverse(began.unwrap_or(i64::MAX)))
}
