//! Taints keep pods away that do not tolerate them.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>. Upstream's message stopped
//! naming the taint in v1.35.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use trireme_client::placement::{has_untolerated_taint, tolerates};

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake, normalize};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct TaintToleration;
struct Tolerations<'a>(&'a [Toleration]);

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        Some(Box::new(Tolerations(pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default())))
    }

    fn weight(&self) -> i64 {
        3
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake == Wake::NodeChanged
    }
}

impl Prepared for Tolerations<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let refused = has_untolerated_taint(&node.node, self.0, &["NoSchedule", "NoExecute"]);
        if refused { Err(Refusal::lasting("node(s) had untolerated taint(s)")) } else { Ok(()) }
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
