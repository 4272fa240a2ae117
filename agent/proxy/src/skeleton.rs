//! The fixed part of the table: hooks, maps, masquerade. What changes with the Services hangs on its maps and chains.

use trireme_nft::{Hook, Transaction};

use crate::{
    ordinary::{ENDPOINTS, PROTOCOLS},
    ruleset::{HAIRPINS, NodeView},
};

/// Mark bit of packets that must leave with the node's own address.
const MASQUERADE: &str = "0x4000";

/// Replaces the whole table by one without Services.
pub fn lay(transaction: &mut Transaction, node: &NodeView) {
    let cidr = node.cluster_cidr;
    transaction.replace_table();
    for map in ["service_ips", "no_endpoints"] {
        transaction.add_map(map, "type ipv4_addr . inet_proto . inet_service : verdict;");
    }
    for map in ["node_ports", "no_endpoints_node_ports"] {
        transaction.add_map(map, "type inet_proto . inet_service : verdict;");
    }
    transaction.add_set("cluster_ips", "type ipv4_addr;");
    transaction.add_set(HAIRPINS, "type ipv4_addr . ipv4_addr;");
    for ((addresses, node_ports), protocol) in ENDPOINTS.into_iter().zip(PROTOCOLS) {
        // The number is what is drawn: any modulus stands for its type.
        let from = format!("{protocol} dport . numgen random mod 2");
        let to = format!("ip daddr . {protocol} dport");
        transaction.add_map(addresses, &format!("typeof ip daddr . {from} : {to};"));
        transaction.add_map(node_ports, &format!("typeof {from} : {to};"));
    }
    for chain in ["mark_masquerade", "reject_packet", "services", "without_endpoints", "other_ports"] {
        transaction.add_chain(chain);
    }
    let here = node_port_match(node);
    let mut rule = |chain: &str, rule: &str| transaction.add_rule(chain, rule);
    rule("mark_masquerade", &format!("meta mark set meta mark or {MASQUERADE}"));
    rule("reject_packet", "reject");
    rule("services", "ip daddr . meta l4proto . th dport vmap @service_ips");
    rule("services", &format!("ip daddr != 127.0.0.0/8 {here} meta l4proto . th dport vmap @node_ports"));
    rule("without_endpoints", "ip daddr . meta l4proto . th dport vmap @no_endpoints");
    rule("without_endpoints", &format!("{here} meta l4proto . th dport vmap @no_endpoints_node_ports"));
    // A packet to a port that the service has was rewritten before it comes here.
    rule("other_ports", "ip daddr @cluster_ips goto reject_packet");
    if let Some(network) = node.service_cidr {
        // Not rejected: the Service may be known here in a moment, and the client tries again. Cluster DNS is answered by the node.
        rule("other_ports", &format!("ip daddr {network} fib daddr type != local drop"));
    }

    let base = [
        ("nat_prerouting", "nat", "prerouting", -100, &["jump services"][..]),
        ("nat_output", "nat", "output", -100, &["jump services"]),
        ("filter_input", "filter", "input", -110, &["ct state new jump without_endpoints"]),
        ("filter_forward", "filter", "forward", -110, &["ct state new jump without_endpoints", "ct state new jump other_ports"]),
        ("filter_output", "filter", "output", -110, &["ct state new jump without_endpoints"]),
        // Behind nat_output: what is still sent to a cluster IP was not rewritten.
        ("filter_output_rewritten", "filter", "output", -90, &["ct state new jump other_ports"]),
    ];
    for (chain, kind, hook, priority, rules) in base {
        transaction.add_base_chain(chain, Hook { kind, hook, priority });
        for rule in rules {
            transaction.add_rule(chain, rule);
        }
    }
    transaction.add_base_chain("nat_postrouting", Hook { kind: "nat", hook: "postrouting", priority: 100 });
    let marked = format!("meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark and 0xffffbfff masquerade fully-random");
    transaction.add_rule("nat_postrouting", &marked);
    transaction.add_rule("nat_postrouting", &format!("ip saddr . ip daddr @{HAIRPINS} masquerade fully-random"));
    let leaves = format!("ip saddr {cidr} ip daddr != {cidr} ip daddr != 224.0.0.0/4 masquerade fully-random");
    transaction.add_rule("nat_postrouting", &leaves);
}

/// Matches what is sent to an address of this node at which node ports are served.
fn node_port_match(node: &NodeView) -> String {
    let networks: Vec<String> = node.node_port_networks.iter().map(ToString::to_string).collect();
    match networks.is_empty() {
        true => "fib daddr type local".to_owned(),
        false => format!("ip daddr {{ {} }} fib daddr type local", networks.join(", ")),
    }
}
