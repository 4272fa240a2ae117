//! A pod that names its node goes nowhere else.

use super::NODE_NAME;
use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{NodeInfo, PodInfo};

pub(crate) struct NodeName;
struct Named<'a>(&'a str);

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        NODE_NAME
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        let name = pod.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        Some(Box::new(Named(name.filter(|name| !name.is_empty())?)))
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        wake == Wake::NodeChanged
    }
}

impl Prepared for Named<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        if self.0 == node.name() { Ok(()) } else { Err(Refusal::lasting("node(s) didn't match the requested node name")) }
    }
}
