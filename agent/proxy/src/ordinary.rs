//! Ordinary Services: their endpoints are elements of a map, and no rule or chain is theirs.
//!
//! The kernel checks a whole table anew for each rule, and for each element that leads to a chain, that a transaction adds. So the chains here are
//! shared by all Services with so many endpoints, and are never removed; a change of a Service's endpoints adds and removes elements that hold
//! addresses, which costs the same with any number of Services.
//!
//! A chain draws a number below its count and looks up address, protocol, port and that number.

use std::{
    fmt::{self, Display},
    net::Ipv4Addr,
};

use crate::{
    ruleset::{NodeView, RuleSet},
    services::{Balanced, Protocol, Target},
};

/// The maps from what is asked for, and a number, to the endpoint: for addresses and for node ports. One for each protocol, because nft keeps to
/// the protocol of the expression that a map was declared with.
pub const ENDPOINTS: [(&str, &str); 3] = [
    ("endpoints_tcp", "node_port_endpoints_tcp"),
    ("endpoints_udp", "node_port_endpoints_udp"),
    ("endpoints_sctp", "node_port_endpoints_sctp"),
];
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A Service with more endpoints has chains of its own.
const MOST: usize = 64;

/// How a chain is come to.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// By a cluster address: sources outside of the cluster are masqueraded.
    Inside,
    /// By an address from outside: all sources are.
    Outside,
    /// By a node port; the same.
    NodePort,
}

/// A chain that picks one of so many endpoints.
#[derive(Debug)]
struct Pick {
    way: Way,
    protocol: Protocol,
    count: usize,
}

/// The chain's name.
impl Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Inside => "inside",
            Way::Outside => "outside",
            Way::NodePort => "node_port",
        };
        write!(f, "pick_{way}_{}_{}", self.protocol, self.count)
    }
}

impl Pick {
    /// The chain's rules.
    fn rules(&self, node: &NodeView) -> String {
        let masquerade = match self.way {
            Way::Inside => format!("ip saddr != {} jump mark_masquerade", node.cluster_cidr),
            Way::Outside | Way::NodePort => "jump mark_masquerade".to_owned(),
        };
        let Pick { protocol, count, .. } = self;
        let address = if matches!(self.way, Way::NodePort) { "" } else { "ip daddr . " };
        let map = map(self.way, *protocol);
        format!("{masquerade}\nmeta l4proto {protocol} dnat ip to {address}{protocol} dport . numgen random mod {count} map @{map}\n")
    }
}

/// Whether a Service is ordinary.
pub fn is_for(service: &Balanced) -> bool {
    let is_plain = service.affinity_secs.is_none() && !service.external_local && service.source_ranges.is_none();
    is_plain && service.internal.len() <= MOST && service.external.len() <= MOST
}

/// Adds the elements of an ordinary Service.
pub fn add(rules: &mut RuleSet, service: &Balanced, node: &NodeView) {
    add_address(rules, node, service, service.cluster_ip, Way::Inside, &service.internal);
    let translated = node.translated.filter(|(external, _)| service.balancer_ips.contains(external)).map(|(_, internal)| internal);
    // A NAT device outside of the node has replaced the external address by the internal one.
    for ip in service
        .balancer_ips
        .iter()
        .copied()
        .chain(translated.filter(|_| !service.external.is_empty()))
        .chain(service.external_ips.iter().copied())
    {
        add_address(rules, node, service, ip, Way::Outside, &service.external);
    }
    if let Some(port) = service.node_port {
        let key = format!("{} . {port}", service.protocol);
        if service.external.is_empty() {
            rules.elements.insert(("no_endpoints_node_ports", key), "goto reject_packet".into());
        } else {
            add_targets(rules, map(Way::NodePort, service.protocol), &port.to_string(), &service.external);
            lead(rules, node, service, "node_ports", key, Way::NodePort, service.external.len());
        }
    }
}

fn add_address(rules: &mut RuleSet, node: &NodeView, service: &Balanced, ip: Ipv4Addr, way: Way, targets: &[Target]) {
    let key = format!("{ip} . {} . {}", service.protocol, service.port);
    if targets.is_empty() {
        rules.elements.insert(("no_endpoints", key), "goto reject_packet".into());
        return;
    }
    add_targets(rules, map(way, service.protocol), &format!("{ip} . {}", service.port), targets);
    lead(rules, node, service, "service_ips", key, way, targets.len());
}

/// The map in which endpoints are looked up.
fn map(way: Way, protocol: Protocol) -> &'static str {
    let (addresses, node_ports) = match protocol {
        Protocol::Tcp => ENDPOINTS[0],
        Protocol::Udp => ENDPOINTS[1],
        Protocol::Sctp => ENDPOINTS[2],
    };
    if matches!(way, Way::NodePort) { node_ports } else { addresses }
}

/// Leads from a map of verdicts to the chain for so many endpoints.
fn lead(rules: &mut RuleSet, node: &NodeView, service: &Balanced, map: &'static str, key: String, way: Way, count: usize) {
    let pick = Pick { way, protocol: service.protocol, count };
    rules.elements.insert((map, key), format!("goto {pick}"));
    rules.shared_chains.insert(pick.to_string(), pick.rules(node));
}

fn add_targets(rules: &mut RuleSet, map: &'static str, key: &str, targets: &[Target]) {
    for (number, target) in targets.iter().enumerate() {
        // With a prefix, a number drawn is told from a port.
        rules.elements.insert((map, format!("{key} . {number:#x}")), format!("{} . {}", target.address, target.port));
        rules.hairpins.insert(target.address);
    }
}
