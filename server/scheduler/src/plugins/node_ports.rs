//! A host port is taken once on a node.

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::{HostPort, NodeInfo, PodInfo};

pub(crate) struct NodePorts;
struct Wanted<'a>(&'a [HostPort]);

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        if pod.host_ports.is_empty() { None } else { Some(Box::new(Wanted(&pod.host_ports))) }
    }

    fn wakes_on(&self, wake: Wake) -> bool {
        matches!(wake, Wake::NodeChanged | Wake::PodFreed)
    }
}

impl Prepared for Wanted<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Refusal> {
        let clash = self.0.iter().any(|wanted| node.used_ports.iter().any(|used| clashes(wanted, used)));
        if clash { Err(Refusal::passing("node(s) didn't have free ports for the requested pod ports")) } else { Ok(()) }
    }
}

/// The empty address is all addresses.
fn clashes((address, protocol, port): &HostPort, (other, other_protocol, other_port): &HostPort) -> bool {
    port == other_port && protocol == other_protocol && (address == other || address.is_empty() || other.is_empty())
}
