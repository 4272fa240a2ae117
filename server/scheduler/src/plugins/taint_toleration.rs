//! Taints keep pods away that do not tolerate them.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>. Upstream's message stopped
//! naming the taint in v1.35.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{Plugin, Prepared, Reason, Snapshot, Wake, normalize};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct TaintToleration;
struct Tolerations<'a>(&'a [Toleration]);

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Gt" => compare(toleration, taint).is_some_and(|order| order.is_lt()),
        "Lt" => compare(toleration, taint).is_some_and(|order| order.is_gt()),
        _ => false,
    }
}

/// Both values as whole numbers: the toleration's against the taint's.
fn compare(toleration: &Toleration, taint: &Taint) -> Option<std::cmp::Ordering> {
    let number = |text: &Option<String>| text.as_deref()?.parse::<i64>().ok();
    Some(number(&toleration.value)?.cmp(&number(&taint.value)?))
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a> {
        Box::new(Tolerations(pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()))
    }

    fn weight(&self) -> i64 {
        3
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake == Wake::NodeChanged
    }
}

impl Prepared for Tolerations<'_> {
    fn filter(&self, node: &NodeInfo) -> Vec<Reason> {
        let refused = taints(node)
            .iter()
            .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
            .any(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint)));
        if refused { vec!["node(s) had untolerated taint(s)".into()] } else { Vec::new() }
    }

    fn score(&self, nodes: &[&NodeInfo]) -> Vec<i64> {
        let intolerable = |node: &&NodeInfo| {
            let count = taints(node)
                .iter()
                .filter(|taint| taint.effect == "PreferNoSchedule")
                .filter(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint)))
                .count();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        normalize(nodes.iter().map(intolerable).collect(), true)
    }
}
