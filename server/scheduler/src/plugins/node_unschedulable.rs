//! A cordoned node takes only pods that tolerate that.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use trireme_client::placement::tolerates;

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct NodeUnschedulable;
struct Cordon;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let taint = Taint { key: "node.kubernetes.io/unschedulable".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let tolerations: &[Toleration] = pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        if tolerations.iter().any(|one| tolerates(one, &taint)) { None } else { Some(Box::new(Cordon)) }
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake == Wake::NodeChanged
    }
}

impl Prepared for Cordon {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        if cordoned { Err(Refusal::lasting("node(s) were unschedulable")) } else { Ok(()) }
    }
}
