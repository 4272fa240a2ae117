//! What a plugin is.

use std::borrow::Cow;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::Namespace;
use std::sync::Arc;

use crate::node_info::{NodeInfo, PodInfo};

/// The best score a plugin can give a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// Why a node will not do, in upstream's words.
pub(crate) type Reason = Cow<'static, str>;

/// Something that may make room for a waiting pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wake {
    /// A node came, or its labels, taints, capacity or schedulability changed.
    NodeChanged,
    /// A pod left its node.
    PodFreed,
    /// A pod came to a node, or its labels changed.
    PodPlaced,
}

impl Wake {
    /// What upstream's metrics call it.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Wake::NodeChanged => "NodeUpdate",
            Wake::PodFreed => "AssignedPodDelete",
            Wake::PodPlaced => "AssignedPodAdd",
        }
    }
}

/// All nodes, for plugins that look beyond one.
pub(crate) struct Snapshot<'a> {
    pub(crate) nodes: Vec<&'a NodeInfo>,
    /// Namespaces by name.
    pub(crate) namespaces: HashMap<String, Arc<Namespace>>,
}

/// One aspect of where a pod may and should go. Stateless: one value serves all pods.
pub(crate) trait Plugin: Send + Sync {
    /// Its name, as upstream has it.
    fn name(&self) -> &'static str;

    /// Refuses a pod before any node is looked at; the text stands for all nodes.
    fn pre_filter(&self, _pod: &PodInfo) -> Result<(), Reason> {
        Ok(())
    }

    /// What the filter needs to know beyond the node, worked out once for a pod.
    fn prepare<'a>(&self, _pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a>;

    /// How much the score counts; zero: it does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// Whether a pod that this plugin refused may be lucky after this.
    fn wakes_on(&self, wake: Wake) -> bool;
}

/// A plugin, ready for one pod.
pub(crate) trait Prepared {
    /// Whether the pod can go to the node; if not, every reason why.
    fn filter(&self, _node: &NodeInfo) -> Vec<Reason> {
        Vec::new()
    }

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
