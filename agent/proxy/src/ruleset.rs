//! The table's content as data, and the difference between two contents as an nft script.
//!
//! A service port has a chain that picks an endpoint; an endpoint has a chain that rewrites the destination. Verdict maps
//! lead from (address, protocol, port) to the service's chain in one look-up, however many services there are. A change of one service
//! touches its own chains and elements only.

use std::{collections::BTreeMap, fmt::Write, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::services::{Balanced, Target};

/// The table's name (family `ip`).
pub const TABLE: &str = "trireme";
/// Mark bit of packets that must leave with the node's own address.
const MASQUERADE: &str = "0x4000";

/// Everything that changes with the services. The fixed part of the table is [`skeleton`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Chain name → its rules, one a line.
    pub chains: BTreeMap<String, String>,
    /// (map, key) → verdict.
    pub elements: BTreeMap<(&'static str, String), String>,
    /// Affinity set name → timeout in seconds.
    pub affinity_sets: BTreeMap<String, u32>,
}

/// What the rules need to know of the node.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// All pods of the cluster.
    pub cluster_cidr: Ipv4Net,
    /// Cluster IPs that something on this node answers itself (DNS): no rules for them.
    pub answered_here: Vec<Ipv4Addr>,
}

/// The rules for these service ports.
pub fn build(services: &[Balanced], node: &NodeView) -> RuleSet {
    let mut rules = RuleSet::default();
    for service in services.iter().filter(|s| !node.answered_here.contains(&s.cluster_ip)) {
        add_service(&mut rules, service, node);
    }
    rules
}

fn add_service(rules: &mut RuleSet, service: &Balanced, node: &NodeView) {
    let name = chain_name(&service.id, service.protocol.to_string().as_str());
    let key = |ip: Ipv4Addr| format!("{ip} . {} . {}", service.protocol, service.port);
    if service.internal.is_empty() {
        rules.elements.insert(("no_endpoints", key(service.cluster_ip)), "goto reject_it".into());
    } else {
        let chain = format!("svc_{name}");
        let mut body = format!("ip saddr != {} jump mark_masquerade\n", node.cluster_cidr);
        balance(rules, &mut body, service, &service.internal, &name);
        rules.chains.insert(chain.clone(), body);
        rules.elements.insert(("service_ips", key(service.cluster_ip)), format!("goto {chain}"));
    }
    add_external(rules, service, &name, key);
}

fn add_external(rules: &mut RuleSet, service: &Balanced, name: &str, key: impl Fn(Ipv4Addr) -> String) {
    if service.external_ips.is_empty() && service.node_port.is_none() {
        return;
    }
    let node_port_key = service.node_port.map(|p| format!("{} . {p}", service.protocol));
    if service.external.is_empty() {
        for ip in &service.external_ips {
            rules.elements.insert(("no_endpoints", key(*ip)), verdict_without_endpoints(service));
        }
        if let Some(key) = node_port_key {
            rules.elements.insert(("no_endpoints_node_ports", key), verdict_without_endpoints(service));
        }
        return;
    }
    let chain = format!("ext_{name}");
    let mut body = String::new();
    if !service.external_local {
        body.push_str("jump mark_masquerade\n");
    }
    balance(rules, &mut body, service, &service.external, name);
    rules.chains.insert(chain.clone(), body);
    for ip in &service.external_ips {
        rules.elements.insert(("service_ips", key(*ip)), format!("goto {chain}"));
    }
    if let Some(key) = node_port_key {
        rules.elements.insert(("node_ports", key), format!("goto {chain}"));
    }
}

/// With policy Local another node may well have endpoints: the packet is dropped, so that a balancer tries elsewhere.
fn verdict_without_endpoints(service: &Balanced) -> String {
    if service.external_local { "drop".into() } else { "goto reject_it".into() }
}

fn balance(rules: &mut RuleSet, body: &mut String, service: &Balanced, targets: &[Target], name: &str) {
    let endpoints: Vec<String> = targets.iter().map(|target| add_endpoint(rules, service, *target, name)).collect();
    if service.affinity_secs.is_some() {
        for endpoint in &endpoints {
            line(body, format_args!("ip saddr @aff_{endpoint} goto ep_{endpoint}"));
        }
    }
    if let [only] = endpoints.as_slice() {
        return line(body, format_args!("goto ep_{only}"));
    }
    let choices: Vec<String> = endpoints.iter().enumerate().map(|(i, e)| format!("{i} : goto ep_{e}")).collect();
    line(body, format_args!("numgen random mod {} vmap {{ {} }}", endpoints.len(), choices.join(", ")));
}

fn add_endpoint(rules: &mut RuleSet, service: &Balanced, target: Target, name: &str) -> String {
    let endpoint = format!("{name}_{}_{}", target.address.to_string().replace('.', "_"), target.port);
    let mut body = String::new();
    // A pod that reaches itself through the service must see the node's address, or its answer would not come back this way.
    line(&mut body, format_args!("ip saddr {} jump mark_masquerade", target.address));
    if let Some(timeout) = service.affinity_secs {
        rules.affinity_sets.insert(format!("aff_{endpoint}"), timeout);
        line(&mut body, format_args!("update @aff_{endpoint} {{ ip saddr }}"));
    }
    line(&mut body, format_args!("meta l4proto {} dnat to {}:{}", service.protocol, target.address, target.port));
    rules.chains.insert(format!("ep_{endpoint}"), body);
    endpoint
}

fn line(body: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(body, "{text}");
}

/// Chain names are at most 127 bytes of a narrow alphabet: a readable part and a hash of the whole identity.
fn chain_name(id: &str, protocol: &str) -> String {
    let readable: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(40).collect();
    format!("{readable}_{protocol}_{:08x}", fnv1a(id.bytes().chain(protocol.bytes())))
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The fixed part: hooks, maps, masquerade. Replaces the whole table atomically.
pub fn skeleton(node: &NodeView) -> String {
    let cidr = node.cluster_cidr;
    format!(
        "add table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{
  map service_ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node_ports {{ type inet_proto . inet_service : verdict; }}
  map no_endpoints {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no_endpoints_node_ports {{ type inet_proto . inet_service : verdict; }}
  chain mark_masquerade {{ meta mark set meta mark or {MASQUERADE}; }}
  chain reject_it {{ reject; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service_ips
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node_ports
  }}
  chain without_endpoints {{
    ip daddr . meta l4proto . th dport vmap @no_endpoints
    fib daddr type local meta l4proto . th dport vmap @no_endpoints_node_ports
  }}
  chain nat_prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain nat_output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain nat_postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark and 0xffffbfff masquerade fully-random
    ip saddr {cidr} ip daddr != {cidr} ip daddr != 224.0.0.0/4 masquerade fully-random
  }}
  chain filter_input {{ type filter hook input priority -110; policy accept; ct state new jump without_endpoints; }}
  chain filter_forward {{ type filter hook forward priority -110; policy accept; ct state new jump without_endpoints; }}
  chain filter_output {{ type filter hook output priority -110; policy accept; ct state new jump without_endpoints; }}
}}\n"
    )
}

/// The script that turns a table with `old` into one with `new`; empty if they are equal.
pub fn difference(old: &RuleSet, new: &RuleSet) -> String {
    let mut script = String::new();
    for (map, key) in old.elements.iter().filter(|(k, v)| new.elements.get(k) != Some(v)).map(|(k, _)| k) {
        line(&mut script, format_args!("delete element ip {TABLE} {map} {{ {key} }}"));
    }
    for (name, timeout) in new.affinity_sets.iter().filter(|(n, t)| old.affinity_sets.get(*n) != Some(t)) {
        line(
            &mut script,
            format_args!("add set ip {TABLE} {name} {{ type ipv4_addr; flags dynamic, timeout; timeout {timeout}s; size 65535; }}"),
        );
    }
    let changed: Vec<_> = new.chains.iter().filter(|(name, body)| old.chains.get(*name) != Some(body)).collect();
    for (name, _) in &changed {
        line(&mut script, format_args!("add chain ip {TABLE} {name}\nflush chain ip {TABLE} {name}"));
    }
    for (name, body) in &changed {
        for rule in body.lines() {
            line(&mut script, format_args!("add rule ip {TABLE} {name} {rule}"));
        }
    }
    for ((map, key), verdict) in new.elements.iter().filter(|(k, v)| old.elements.get(k) != Some(v)) {
        line(&mut script, format_args!("add element ip {TABLE} {map} {{ {key} : {verdict} }}"));
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    // Emptied first, then deleted: a chain that another one still jumps to can't be deleted.
    for name in &gone {
        line(&mut script, format_args!("flush chain ip {TABLE} {name}"));
    }
    for name in &gone {
        line(&mut script, format_args!("delete chain ip {TABLE} {name}"));
    }
    for name in old.affinity_sets.keys().filter(|name| !new.affinity_sets.contains_key(*name)) {
        line(&mut script, format_args!("delete set ip {TABLE} {name}"));
    }
    script
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::services::{
        collect,
        tests::{service, slice},
    };
    use serde_json::{Value, json};

    fn node() -> NodeView {
        NodeView { cluster_cidr: "10.42.0.0/16".parse().unwrap(), answered_here: vec![Ipv4Addr::new(10, 43, 0, 10)] }
    }

    fn rules(spec: Value, pods: &[&str]) -> RuleSet {
        let endpoints: Vec<Value> = pods.iter().map(|p| json!({"addresses": [p], "nodeName": "n2"})).collect();
        let (service, slice) = (service(spec), slice(json!(endpoints)));
        build(&collect([&service].into_iter(), [&slice].into_iter(), "n1"), &node())
    }

    fn cluster_ip() -> Value {
        json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
    }

    #[test]
    fn a_service_is_one_look_up_and_one_choice() {
        let rules = rules(cluster_ip(), &["10.42.0.2", "10.42.0.3"]);
        let verdict = &rules.elements[&("service_ips", "10.43.0.9 . tcp . 80".to_owned())];
        let chain = verdict.strip_prefix("goto ").unwrap();
        assert!(rules.chains[chain].contains("numgen random mod 2 vmap"), "{}", rules.chains[chain]);
        assert!(rules.elements.contains_key(&("node_ports", "tcp . 30080".to_owned())));
        assert!(rules.chains.values().any(|c| c.contains("dnat to 10.42.0.3:8080")));
    }

    #[test]
    fn without_endpoints_the_client_hears_a_reject_and_with_policy_local_nothing() {
        let empty = rules(cluster_ip(), &[]);
        assert_eq!(empty.elements[&("no_endpoints", "10.43.0.9 . tcp . 80".to_owned())], "goto reject_it");
        let mut local = cluster_ip();
        local["externalTrafficPolicy"] = json!("Local");
        let elsewhere = rules(local, &["10.42.0.2"]);
        assert_eq!(elsewhere.elements[&("no_endpoints_node_ports", "tcp . 30080".to_owned())], "drop");
    }

    #[test]
    fn an_address_answered_on_the_node_has_no_rules() {
        let mut dns = cluster_ip();
        dns["clusterIP"] = json!("10.43.0.10");
        assert_eq!(rules(dns, &["10.42.0.2"]), RuleSet::default());
    }

    #[test]
    fn a_change_touches_only_what_changed() {
        let (two, three) =
            (rules(cluster_ip(), &["10.42.0.2", "10.42.0.3"]), rules(cluster_ip(), &["10.42.0.2", "10.42.0.3", "10.42.0.4"]));
        let grow = difference(&two, &three);
        assert!(grow.contains("dnat to 10.42.0.4:8080") && !grow.contains("dnat to 10.42.0.2"), "{grow}");
        assert!(!grow.contains("element"), "the maps lead to the same chains: {grow}");
        let shrink = difference(&three, &two);
        assert!(shrink.contains("delete chain") && !shrink.contains("add element"), "{shrink}");
        assert!(difference(&two, &two).is_empty());
    }
}
