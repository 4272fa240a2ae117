//! Which outdated pods of a DaemonSet are replaced next. No I/O.
//!
//! Without surge old pods are deleted, and the nodes without a pod are filled again: no more than `maxUnavailable` nodes lack an
//! available pod for that. With surge new pods are made beside old ones, on no more than `maxSurge` nodes, and the old ones go when
//! the new ones are available. An old pod that is not available is replaced without counting against the limits.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trireme_client::Object;

use super::eligible::Fit;
use super::manage::Situation;
use crate::pods;
use crate::workloads::amount::scaled;

/// How many nodes an update may touch at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: usize,
    pub(super) unavailable: usize,
}

/// The changes to make.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The nodes that get a pod beside their old one.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
}

/// Whether outdated pods are replaced without someone deleting them.
pub(super) fn updates_by_itself(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    !matches!(strategy.and_then(|strategy| strategy.type_.as_deref()), Some("OnDelete"))
}

/// Whether a node may have two pods.
pub(super) fn surges(set: &DaemonSet) -> bool {
    updates_by_itself(set) && limits(set, 1).surge > 0
}

/// The limits for so many nodes, percentages rounded up.
pub(super) fn limits(set: &DaemonSet, nodes: usize) -> Limits {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    let count = |value: &IntOrString| usize::try_from(scaled(value, nodes, true)).unwrap_or(0);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, count);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).map_or(1, count);
    // With both limits at zero, the rollout would never make progress.
    Limits { surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable } }
}

/// The pods of a node that are not being deleted.
enum OnNode<'a> {
    None,
    New(&'a Arc<Pod>),
    Old(&'a Arc<Pod>),
    Both {
        new: &'a Arc<Pod>,
        old: &'a Arc<Pod>,
    },
    /// More than one of a kind: they are pruned first.
    TooMany,
}

fn on_node<'a>(situation: &Situation<'_>, pods: &'a [Arc<Pod>]) -> OnNode<'a> {
    let staying = pods.iter().filter(|pod| !pods::is_terminating(pod));
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = staying.partition(|pod| situation.newest.is(pod));
    match (&new[..], &old[..]) {
        ([], []) => OnNode::None,
        (&[new], []) => OnNode::New(new),
        ([], &[old]) => OnNode::Old(old),
        (&[new], &[old]) => OnNode::Both { new, old },
        _ => OnNode::TooMany,
    }
}

/// What to do on the nodes that should have a pod or have one.
pub(super) fn step(situation: &Situation<'_>, set: &DaemonSet) -> Step {
    let desired: BTreeSet<&str> =
        situation.nodes.iter().filter(|node| situation.place.fit(node) == Fit::Runs).map(|node| node.name()).collect();
    let limits = limits(set, desired.len());
    let empty = desired.iter().filter(|node| !situation.pods.contains_key(**node)).count();
    if limits.surge == 0 { replace(situation, limits, empty) } else { surge(situation, limits, &desired) }
}

fn replace(situation: &Situation<'_>, limits: Limits, empty: usize) -> Step {
    let (mut unavailable, mut free, mut candidates) = (empty, Vec::new(), Vec::new());
    for pods in situation.pods.values() {
        match on_node(situation, pods) {
            OnNode::New(new) if situation.is_available(new) => {}
            OnNode::Old(old) if situation.is_available(old) => candidates.push(Arc::clone(old)),
            OnNode::Old(old) => {
                free.push(Arc::clone(old));
                unavailable += 1;
            }
            OnNode::None | OnNode::New(_) | OnNode::Both { .. } | OnNode::TooMany => unavailable += 1,
        }
    }
    candidates.truncate(limits.unavailable.saturating_sub(unavailable));
    free.extend(candidates);
    Step { create: Vec::new(), delete: free }
}

fn surge(situation: &Situation<'_>, limits: Limits, desired: &BTreeSet<&str>) -> Step {
    let mut step = Step::default();
    let (mut surging, mut available) = (0, 0);
    let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
    for (node, pods) in situation.pods {
        let wanted = desired.contains(node.as_str());
        let on_node = on_node(situation, pods);
        if let OnNode::New(pod) | OnNode::Old(pod) | OnNode::Both { old: pod, .. } = on_node {
            available += usize::from(situation.is_available(pod));
        }
        match on_node {
            OnNode::None | OnNode::New(_) => {}
            OnNode::Both { new, old } if situation.is_available(new) => step.delete.push(Arc::clone(old)),
            OnNode::Both { .. } | OnNode::TooMany => surging += 1,
            OnNode::Old(old) if !situation.is_available(old) && !wanted => step.delete.push(Arc::clone(old)),
            OnNode::Old(old) if !situation.is_available(old) => step.create.push(node.clone()),
            OnNode::Old(old) if !wanted => misplaced.push(Arc::clone(old)),
            OnNode::Old(_) => candidates.push(node.clone()),
        }
    }
    // With surge, the application must not lose capacity: a pod on a wrong node is deleted only when enough others are available.
    misplaced.truncate(available.saturating_sub(desired.len()));
    step.delete.extend(misplaced);
    candidates.truncate(limits.surge.saturating_sub(surging));
    step.create.extend(candidates);
    step
}

#[cfg(test)]
mod tests;
