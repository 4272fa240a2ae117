//! Which way to the other nodes' pods: a pure plan from the Node objects.
//!
//! Owns the rule "one route per other node that has a pod CIDR and an internal address". Does no I/O: `network`
//! applies the difference between two plans.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;

/// Another node, as the pod network sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The pods behind it.
    pub pod_cidr: Ipv4Net,
    /// Its address on the network that the nodes share.
    pub node_ip: Ipv4Addr,
}

impl Peer {
    /// The address of its tunnel device: the network address of its pod CIDR.
    pub fn tunnel_ip(&self) -> Ipv4Addr {
        self.pod_cidr.network()
    }

    /// The MAC of its tunnel device.
    pub fn tunnel_mac(&self) -> [u8; 6] {
        tunnel_mac(self.node_ip)
    }
}

/// A tunnel device's MAC is derived from its node's address, so it need not be published.
pub fn tunnel_mac(node_ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node_ip.octets();
    // 0x0e: locally administered, unicast.
    [0x0e, 0x72, a, b, c, d]
}

/// The MAC that belongs to an address on the bridge. No neighbour keeps a stale ARP entry when the address goes to another pod.
pub fn bridge_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    // 0x0a: locally administered, unicast.
    [0x0a, 0x58, a, b, c, d]
}

/// Every other node by name. Nodes without pod CIDR or internal IPv4 address are left out until they have both.
pub fn plan<'a>(nodes: impl Iterator<Item = &'a Node>, this_node: &str) -> BTreeMap<String, Peer> {
    nodes
        .filter_map(|node| {
            let name = node.metadata.name.clone()?;
            if name == this_node {
                return None;
            }
            Some((name, Peer { pod_cidr: pod_cidr(node)?, node_ip: internal_ip(node)? }))
        })
        .collect()
}

/// The node's first IPv4 pod CIDR.
pub fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    let many = spec.pod_cidrs.iter().flatten();
    many.chain(spec.pod_cidr.iter()).find_map(|cidr| cidr.parse().ok())
}

fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn node(name: &str, cidr: Option<&str>, ip: Option<&str>) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": cidr},
            "status": {"addresses": ip.map(|ip| json!([{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}]))},
        }))
        .unwrap()
    }

    #[test]
    fn only_other_nodes_that_can_be_reached_are_planned() {
        let nodes = [
            node("me", Some("10.42.0.0/24"), Some("10.0.0.1")),
            node("other", Some("10.42.1.0/24"), Some("10.0.0.2")),
            node("no-cidr-yet", None, Some("10.0.0.3")),
            node("no-address-yet", Some("10.42.3.0/24"), None),
        ];
        let plan = plan(nodes.iter(), "me");
        assert_eq!(plan.keys().collect::<Vec<_>>(), ["other"]);
        let peer = plan["other"];
        assert_eq!(peer.tunnel_ip(), Ipv4Addr::new(10, 42, 1, 0));
        assert_eq!(peer.tunnel_mac(), [0x0e, 0x72, 10, 0, 0, 2]);
    }
}
