//! The interface of scheduler plugins.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::node_info::{NodeInfo, PodInfo};
use crate::nominations::Nominations;
use crate::world::World;

/// The best score a plugin can give a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node will not do, in upstream's words.
pub(crate) type Reason = Cow<'static, str>;

/// A plugin's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Every reason.
    pub(crate) reasons: Vec<Reason>,
    /// It stands even if all pods of lower priority leave the node. Upstream: `UnschedulableAndUnresolvable`.
    pub(crate) lasting: bool,
}

impl Refusal {
    /// The node may do once other pods have left it.
    pub(crate) fn passing(reason: impl Into<Reason>) -> Self {
        Self { reasons: vec![reason.into()], lasting: false }
    }

    /// No pod's leaving changes it.
    pub(crate) fn lasting(reason: impl Into<Reason>) -> Self {
        Self { reasons: vec![reason.into()], lasting: true }
    }
}

/// An event that may make a waiting pod schedulable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wake {
    /// A node was added, or its labels, taints, capacity or schedulability changed.
    NodeChanged,
    /// A node was removed.
    NodeGone,
    /// A pod left its node, or gave up its nomination.
    PodFreed,
    /// A pod was placed on a node.
    PodPlaced,
    /// A pod on a node has other labels, asks for less, or began to terminate.
    PodChanged,
    /// A claim was added or changed.
    ClaimChanged,
    /// A volume was added or changed.
    VolumeChanged,
    /// A storage class was added or changed.
    ClassChanged,
}

impl Wake {
    /// What upstream's metrics call it.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Wake::NodeChanged => "NodeUpdate",
            Wake::NodeGone => "NodeDelete",
            Wake::PodFreed => "AssignedPodDelete",
            Wake::PodPlaced => "AssignedPodAdd",
            Wake::PodChanged => "AssignedPodUpdate",
            Wake::ClaimChanged => "PersistentVolumeClaimUpdate",
            Wake::VolumeChanged => "PersistentVolumeUpdate",
            Wake::ClassChanged => "StorageClassUpdate",
        }
    }
}

/// The state on which one decision is based.
pub(crate) struct Snapshot<'a> {
    /// All nodes, ordered by name.
    pub(crate) nodes: Vec<&'a NodeInfo>,
    /// The pods that victims are making room for.
    pub(crate) nominated: &'a Nominations,
    /// Pods whose deletion this scheduler has asked for.
    pub(crate) doomed: &'a HashSet<String>,
    /// The volumes that pods on their way to a node will get, with the uid of the claim.
    pub(crate) promised: &'a HashMap<String, String>,
    /// Everything else.
    pub(crate) world: &'a dyn World,
}

impl<'a> Snapshot<'a> {
    /// A node by its name.
    pub(crate) fn node(&self, name: &str) -> Option<&'a NodeInfo> {
        let at = self.nodes.binary_search_by(|node| node.name().cmp(name)).ok()?;
        self.nodes.get(at).copied()
    }
}

/// One aspect of where a pod may and should go. Stateless: one value serves all pods.
pub(crate) trait Plugin: Send + Sync {
    /// Its name, as upstream has it.
    fn name(&self) -> &'static str;

    /// Looks at a pod before any node is looked at. A refusal stands for all nodes; names are the only nodes worth a look.
    fn pre_filter(&self, _pod: &PodInfo, _snapshot: &Snapshot<'_>) -> Result<Option<BTreeSet<String>>, Refusal> {
        Ok(None)
    }

    /// The state that filter and score need beyond the node, computed once per pod. `None`: the plugin does not apply to this pod.
    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>>;

    /// How much the score counts; zero: it does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// Whether this event may make a pod schedulable that this plugin refused.
    fn wakes_on(&self, wake: Wake) -> bool;
}

/// A simulated change of an existing pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The pod is added to the node.
    Comes,
    /// The pod is removed from the node.
    Goes,
}

impl Change {
    /// How a count of pods changes.
    pub(crate) fn step(self) -> i64 {
        match self {
            Change::Comes => 1,
            Change::Goes => -1,
        }
    }
}

/// A plugin, ready for one pod.
pub(crate) trait Prepared {
    /// Whether the pod can go to the node.
    fn filter(&self, _node: &NodeInfo) -> Result<(), Refusal> {
        Ok(())
    }

    /// From now on, filters see a cluster in which `other` has come to the node or left it. Each change is undone by its
    /// opposite.
    fn imagine(&mut self, _other: &PodInfo, _node: &NodeInfo, _change: Change) {}

    /// Scores for nodes that passed all filters, each 0 to [`MAX_SCORE`], in the same order.
    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        vec![0; nodes.len()]
    }
}

/// Stretches raw scores so that the best is [`MAX_SCORE`]; `reverse`: the smallest is best.
pub(crate) fn normalize(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        *score = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        if reverse {
            *score = MAX_SCORE - *score;
        }
    }
    scores
}
