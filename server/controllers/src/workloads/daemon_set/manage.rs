//! Which pods a DaemonSet lacks and which it has too many. No I/O.
//!
//! Invariant: a node that refuses the set's pods keeps none; a node gets a second pod only while the update strategy surges.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use trireme_client::Object;

use super::eligible::{Fit, Place};
use super::pod::{ByNode, Newest};
use crate::pods;
use crate::workloads::history::{REVISION_LABEL, label};

/// The state from which the plan is made.
pub(super) struct Situation<'a> {
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) pods: &'a ByNode,
    pub(super) place: &'a Place,
    pub(super) newest: &'a Newest<'a>,
    /// Whether a node may have an old pod and a new one.
    pub(super) surges: bool,
    pub(super) min_ready_secs: i32,
    pub(super) now: Timestamp,
}

impl Situation<'_> {
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::available_in_secs(pod, self.min_ready_secs, self.now) == Some(0)
    }
}

/// The changes to make.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Failed pods by their nodes: deleted too, but not too often.
    pub(super) failed: Vec<(String, Arc<Pod>)>,
    /// Pods that ended as if they were not meant to run for ever: deleted too.
    pub(super) succeeded: Vec<Arc<Pod>>,
}

pub(super) fn manage(situation: &Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    for node in situation.nodes {
        let fit = situation.place.fit(node);
        match (fit, situation.pods.get(node.name())) {
            (Fit::Runs, None) => plan.create.push(node.name().to_owned()),
            (Fit::Runs | Fit::Keeps, Some(pods)) => keep(situation, node.name(), fit, pods, &mut plan),
            (Fit::Refuses, Some(pods)) => plan.delete.extend(pods.iter().filter(|pod| !pods::is_terminating(pod)).cloned()),
            (Fit::Keeps | Fit::Refuses, None) => {}
        }
    }
    plan.delete.extend(lost(situation));
    plan
}

/// Pods on a node that is gone. No other component deletes them.
fn lost(situation: &Situation<'_>) -> Vec<Arc<Pod>> {
    let known: BTreeSet<&str> = situation.nodes.iter().map(|node| node.name()).collect();
    let unknown = situation.pods.iter().filter(|(node, _)| !known.contains(node.as_str())).flat_map(|(_, pods)| pods);
    unknown.filter(|pod| pods::node_name(pod).is_none() && !pods::is_terminating(pod)).cloned().collect()
}

/// Plans for the pods of a node that may have one.
fn keep(situation: &Situation<'_>, node: &str, fit: Fit, all: &[Arc<Pod>], plan: &mut Plan) {
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in all.iter().filter(|pod| !pods::is_terminating(pod)) {
        match pods::phase(pod) {
            "Failed" => plan.failed.push((node.to_owned(), Arc::clone(pod))),
            "Succeeded" => plan.succeeded.push(Arc::clone(pod)),
            _ => running.push(pod),
        }
    }
    if !situation.surges {
        plan.delete.extend(running.into_iter().skip(1).cloned());
    } else if running.is_empty() {
        if fit == Fit::Runs {
            plan.create.push(node.to_owned());
        }
    } else {
        surge(situation, &running, plan);
    }
}

/// At most one pod of the present template and one older stay, the oldest of each; the older one until it is not ready or the
/// newer one is available.
fn surge(situation: &Situation<'_>, running: &[&Arc<Pod>], plan: &mut Plan) {
    let is_new = |pod: &Pod| label(&pod.metadata, REVISION_LABEL) == situation.newest.hash;
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.iter().copied().partition(|pod| is_new(pod));
    plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).copied().cloned());
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pods::is_ready(old) || situation.is_available(new))
    {
        plan.delete.push(Arc::clone(old));
    }
}

#[cfg(test)]
mod tests;
