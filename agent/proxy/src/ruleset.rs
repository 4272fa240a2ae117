//! The table's content as data, and the difference between two contents as an nft transaction.
//!
//! A service port has a chain that picks an endpoint; an endpoint has a chain that rewrites the destination. Verdict maps
//! lead from (address, protocol, port) to the service's chain in one look-up, however many services there are. A change of one service
//! touches its own chains and elements only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use trireme_nft::Transaction;

use crate::services::{Balanced, Target};

/// The table's name (family `ip`).
pub const TABLE: &str = "trireme";

/// Up to so many endpoints are chosen among in one chain; more are divided into groups of so many, with a chain for each. Not by an anonymous
/// map: to add one, the kernel looks at all maps of the table, so thousands of them take minutes to load.
const GROUP: usize = 16;

/// Everything that changes with the services. The fixed part of the table is [`crate::skeleton`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Chain name → its rules, one a line.
    pub chains: BTreeMap<String, String>,
    /// (map, key) → verdict.
    pub elements: BTreeMap<(&'static str, String), String>,
    /// Affinity set name → timeout in seconds.
    pub affinity_sets: BTreeMap<String, u32>,
    /// Cluster IPs: what is sent to another port of one of them is rejected.
    pub cluster_ips: BTreeSet<Ipv4Addr>,
}

/// What the rules need to know of the node.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// All pods of the cluster.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services: what is sent to one that no Service has is dropped.
    pub service_cidr: Option<Ipv4Net>,
    /// Networks of this node's addresses at which node ports are served; empty for all of them.
    pub node_port_networks: Vec<Ipv4Net>,
    /// This node's external address, if it has one that may be translated on the way to it, and the address that it has itself.
    pub translated: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// The rules for these ports of a Service.
pub fn build(services: &[Balanced], node: &NodeView) -> RuleSet {
    let mut rules = RuleSet::default();
    for service in services {
        rules.cluster_ips.insert(service.cluster_ip);
        add_service(&mut rules, service, node);
    }
    rules
}

fn add_service(rules: &mut RuleSet, service: &Balanced, node: &NodeView) {
    let name = chain_name(&service.id, service.protocol.to_string().as_str());
    let key = |ip: Ipv4Addr| format!("{ip} . {} . {}", service.protocol, service.port);
    if service.internal.is_empty() {
        rules.elements.insert(("no_endpoints", key(service.cluster_ip)), "goto reject_packet".into());
    } else {
        let chain = format!("svc_{name}");
        let mut body = format!("ip saddr != {} jump mark_masquerade\n", node.cluster_cidr);
        balance(rules, &mut body, service, &service.internal, &name, &chain);
        rules.chains.insert(chain.clone(), body);
        rules.elements.insert(("service_ips", key(service.cluster_ip)), format!("goto {chain}"));
    }
    add_external(rules, service, &name, node, key);
}

fn add_external(rules: &mut RuleSet, service: &Balanced, name: &str, node: &NodeView, key: impl Fn(Ipv4Addr) -> String) {
    if service.external_ips.is_empty() && service.balancer_ips.is_empty() && service.node_port.is_none() {
        return;
    }
    let node_port_key = service.node_port.map(|p| format!("{} . {p}", service.protocol));
    // Policy Local applies to traffic from outside the cluster only: pods and nodes reach every endpoint.
    let inside = (service.external_local && !service.everywhere.is_empty()).then(|| inside_chain(rules, service, name, node));
    if service.external.is_empty() && inside.is_none() {
        for ip in service.external_ips.iter().chain(&service.balancer_ips) {
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
    if let Some(chain) = &inside {
        line(&mut body, format_args!("ip saddr {} goto {chain}", node.cluster_cidr));
        line(&mut body, format_args!("fib saddr type local goto {chain}"));
    }
    match service.external.is_empty() {
        // Another node has endpoints: the packet is dropped, so that a balancer tries elsewhere.
        true => line(&mut body, format_args!("drop")),
        false => balance(rules, &mut body, service, &service.external, name, &chain),
    }
    rules.chains.insert(chain.clone(), body);
    let admits = balancer_chain(rules, service, name, &chain);
    for ip in &service.balancer_ips {
        rules.elements.insert(("service_ips", key(*ip)), format!("goto {admits}"));
        // A NAT device outside of the node has replaced the external address by the internal one.
        if let Some((_, internal)) = node.translated.filter(|(external, _)| external == ip) {
            rules.elements.insert(("service_ips", key(internal)), format!("goto {admits}"));
        }
    }
    // An address that is both is open to everybody.
    for ip in &service.external_ips {
        rules.elements.insert(("service_ips", key(*ip)), format!("goto {chain}"));
    }
    if let Some(key) = node_port_key {
        rules.elements.insert(("node_ports", key), format!("goto {chain}"));
    }
}

/// The chain for clients inside the cluster. Neither traffic policy applies to them.
fn inside_chain(rules: &mut RuleSet, service: &Balanced, name: &str, node: &NodeView) -> String {
    if service.internal == service.everywhere {
        return format!("svc_{name}");
    }
    let mut body = format!("ip saddr != {} jump mark_masquerade\n", node.cluster_cidr);
    let chain = format!("all_{name}");
    balance(rules, &mut body, service, &service.everywhere, name, &chain);
    rules.chains.insert(chain.clone(), body);
    chain
}

/// The chain that admits the clients of a load balancer; `chain` itself if all are.
fn balancer_chain(rules: &mut RuleSet, service: &Balanced, name: &str, chain: &str) -> String {
    let Some(ranges) = service.source_ranges.as_ref().filter(|_| !service.balancer_ips.is_empty()) else { return chain.to_owned() };
    let mut body = String::new();
    for range in ranges {
        line(&mut body, format_args!("ip saddr {range} goto {chain}"));
    }
    line(&mut body, format_args!("drop"));
    let admits = format!("lb_{name}");
    rules.chains.insert(admits.clone(), body);
    admits
}

/// With policy Local another node may well have endpoints: the packet is dropped, so that a balancer tries elsewhere.
fn verdict_without_endpoints(service: &Balanced) -> String {
    if service.external_local { "drop".into() } else { "goto reject_packet".into() }
}

/// Ends the rules of `chain` with the choice of an endpoint.
fn balance(rules: &mut RuleSet, body: &mut String, service: &Balanced, targets: &[Target], name: &str, chain: &str) {
    let endpoints: Vec<String> = targets.iter().map(|target| add_endpoint(rules, service, *target, name)).collect();
    if let Some(timeout) = service.affinity_secs {
        for endpoint in &endpoints {
            line(body, format_args!("ip saddr @{} goto ep_{endpoint}", affinity_set(endpoint, timeout)));
        }
    }
    if endpoints.len() <= GROUP {
        return choose(body, &endpoints);
    }
    let mut left = endpoints.len();
    for (number, group) in endpoints.chunks(GROUP).enumerate() {
        let group_chain = format!("{chain}_{number}");
        match left == group.len() {
            true => line(body, format_args!("goto {group_chain}")),
            false => line(body, format_args!("numgen random mod {left} < {} goto {group_chain}", group.len())),
        }
        left -= group.len();
        let mut choice = String::new();
        choose(&mut choice, group);
        rules.chains.insert(group_chain, choice);
    }
}

/// Each endpoint is as likely as any other: the first of `n` is taken once in `n` times, else the next is the first of those left.
fn choose(body: &mut String, endpoints: &[String]) {
    for (left, endpoint) in (1..=endpoints.len()).rev().zip(endpoints) {
        match left {
            1 => line(body, format_args!("goto ep_{endpoint}")),
            _ => line(body, format_args!("numgen random mod {left} == 0 goto ep_{endpoint}")),
        }
    }
}

fn add_endpoint(rules: &mut RuleSet, service: &Balanced, target: Target, name: &str) -> String {
    let endpoint = format!("{name}_{}_{}", target.address.to_string().replace('.', "_"), target.port);
    let mut body = String::new();
    // A pod that reaches itself through the service must see the node's address, or its answer would not come back this way.
    line(&mut body, format_args!("ip saddr {} jump mark_masquerade", target.address));
    if let Some(timeout) = service.affinity_secs {
        let set = affinity_set(&endpoint, timeout);
        line(&mut body, format_args!("update @{set} {{ ip saddr }}"));
        rules.affinity_sets.insert(set, timeout);
    }
    line(&mut body, format_args!("meta l4proto {} dnat to {}:{}", service.protocol, target.address, target.port));
    rules.chains.insert(format!("ep_{endpoint}"), body);
    endpoint
}

/// The clients that keep to an endpoint. A set cannot change its timeout, so another timeout is another set.
fn affinity_set(endpoint: &str, timeout: u32) -> String {
    format!("aff_{endpoint}_{timeout}")
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

/// Adds what turns a table with `old` into one with `new`; nothing if they are equal.
pub fn difference(transaction: &mut Transaction, old: &RuleSet, new: &RuleSet) {
    for (map, key) in old.elements.iter().filter(|(k, v)| new.elements.get(k) != Some(v)).map(|(k, _)| k) {
        transaction.delete_element(map, key);
    }
    for ip in old.cluster_ips.difference(&new.cluster_ips) {
        transaction.delete_element("cluster_ips", &ip.to_string());
    }
    for (name, timeout) in new.affinity_sets.iter().filter(|(name, _)| !old.affinity_sets.contains_key(*name)) {
        transaction.add_set(name, &format!("type ipv4_addr; flags dynamic, timeout; timeout {timeout}s; size 65535;"));
    }
    let changed: Vec<_> = new.chains.iter().filter(|(name, body)| old.chains.get(*name) != Some(body)).collect();
    for (name, _) in &changed {
        transaction.add_chain(name);
        transaction.flush_chain(name);
    }
    for (name, body) in &changed {
        for rule in body.lines() {
            transaction.add_rule(name, rule);
        }
    }
    for ((map, key), verdict) in new.elements.iter().filter(|(k, v)| old.elements.get(k) != Some(v)) {
        transaction.add_element(map, &format!("{key} : {verdict}"));
    }
    for ip in new.cluster_ips.difference(&old.cluster_ips) {
        transaction.add_element("cluster_ips", &ip.to_string());
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    // Emptied first, then deleted: a chain that another one still jumps to cannot be deleted.
    for name in &gone {
        transaction.flush_chain(name);
    }
    for name in &gone {
        transaction.delete_chain(name);
    }
    for name in old.affinity_sets.keys().filter(|name| !new.affinity_sets.contains_key(*name)) {
        transaction.delete_set(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::services::{
        balanced_ports,
        tests::{n1, service, slice},
    };
    use serde_json::{Value, json};

    fn node() -> NodeView {
        NodeView { cluster_cidr: "10.42.0.0/16".parse().unwrap(), service_cidr: None, node_port_networks: Vec::new(), translated: None }
    }

    fn rules(spec: Value, pods: &[&str]) -> RuleSet {
        let endpoints: Vec<Value> = pods.iter().map(|p| json!({"addresses": [p], "nodeName": "n2"})).collect();
        let (service, slice) = (service(spec), slice(json!(endpoints)));
        build(&balanced_ports(&service, &[slice], &n1()), &node())
    }

    fn cluster_ip() -> Value {
        json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
    }

    #[test]
    fn a_service_is_one_look_up_and_one_choice() {
        let rules = rules(cluster_ip(), &["10.42.0.2", "10.42.0.3"]);
        let verdict = &rules.elements[&("service_ips", "10.43.0.9 . tcp . 80".to_owned())];
        let chain = verdict.strip_prefix("goto ").unwrap();
        assert!(rules.chains[chain].contains("numgen random mod 2 == 0 goto "), "{}", rules.chains[chain]);
        assert!(rules.elements.contains_key(&("node_ports", "tcp . 30080".to_owned())));
        assert!(rules.chains.values().any(|c| c.contains("dnat to 10.42.0.3:8080")));
    }

    #[test]
    fn without_endpoints_the_client_hears_a_reject_and_with_policy_local_nothing() {
        let empty = rules(cluster_ip(), &[]);
        assert_eq!(empty.elements[&("no_endpoints", "10.43.0.9 . tcp . 80".to_owned())], "goto reject_packet");
        let mut local = cluster_ip();
        local["externalTrafficPolicy"] = json!("Local");
        let elsewhere = rules(local, &["10.42.0.2"]);
        let chain = elsewhere.elements[&("node_ports", "tcp . 30080".to_owned())].strip_prefix("goto ").unwrap();
        let rules: Vec<&str> = elsewhere.chains[chain].lines().collect();
        let [pods, node, outside] = rules.as_slice() else { panic!("{rules:?}") };
        assert!(pods.starts_with("ip saddr 10.42.0.0/16 goto svc_") && node.starts_with("fib saddr type local goto svc_"), "{rules:?}");
        assert_eq!(*outside, "drop");
    }

    #[test]
    fn a_load_balancer_admits_its_source_ranges_and_an_external_address_everybody() {
        let with = |ranges: Value| {
            let mut spec = cluster_ip();
            spec["externalIPs"] = json!(["198.51.100.7"]);
            spec["loadBalancerSourceRanges"] = ranges;
            let mut service = service(spec);
            let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.11", "ipMode": "Proxy"}, {"ip": "198.51.100.7"}]}});
            service.status = serde_json::from_value(status).unwrap();
            let slice = slice(json!([{"addresses": ["10.42.0.2"]}]));
            let node = NodeView { translated: Some(([192, 0, 2, 10].into(), [10, 0, 0, 10].into())), ..node() };
            build(&balanced_ports(&service, &[slice], &n1()), &node)
        };
        let chain = |rules: &RuleSet, ip: &str| {
            rules.elements.get(&("service_ips", format!("{ip} . tcp . 80"))).and_then(|v| v.strip_prefix("goto ")).map(str::to_owned)
        };
        let limited = with(json!(["203.0.113.0/24", " 10.0.0.0/8", "fd00::/8"]));
        let admits = chain(&limited, "192.0.2.10").unwrap();
        let body: Vec<&str> = limited.chains[&admits].lines().collect();
        assert!(
            body[0].starts_with("ip saddr 203.0.113.0/24 goto ext_") && body[1].starts_with("ip saddr 10.0.0.0/8 ") && body[2] == "drop",
            "{body:?}"
        );
        assert!(chain(&limited, "198.51.100.7").unwrap().starts_with("ext_"));
        assert_eq!(chain(&limited, "192.0.2.11"), None, "its traffic goes through a proxy");
        assert_eq!(limited.chains[&chain(&with(json!(["fd00::/8"])), "192.0.2.10").unwrap()].lines().last(), Some("drop"));
        assert!(chain(&with(json!([])), "192.0.2.10").unwrap().starts_with("ext_"));
        assert_eq!(chain(&limited, "10.0.0.10").as_deref(), Some(admits.as_str()), "the node's own address behind the external one");
    }

    #[test]
    fn a_change_touches_only_what_changed() {
        let (two, three) =
            (rules(cluster_ip(), &["10.42.0.2", "10.42.0.3"]), rules(cluster_ip(), &["10.42.0.2", "10.42.0.3", "10.42.0.4"]));
        let difference = |old: &RuleSet, new: &RuleSet| {
            let mut transaction = Transaction::new(trireme_nft::Family::Ip, TABLE);
            super::difference(&mut transaction, old, new);
            transaction.script().unwrap()
        };
        let grow = difference(&two, &three);
        assert!(grow.contains("dnat to 10.42.0.4:8080") && !grow.contains("dnat to 10.42.0.2"), "{grow}");
        assert!(!grow.contains("element"), "the maps lead to the same chains: {grow}");
        let shrink = difference(&three, &two);
        assert!(shrink.contains("delete chain") && !shrink.contains("add element"), "{shrink}");
        assert!(difference(&two, &two).is_empty());
    }

    #[test]
    fn each_of_many_endpoints_is_as_likely_as_any_other() {
        for count in [1_usize, 2, 16, 17, 32, 33, 100] {
            let pods: Vec<String> = (0..count).map(|n| format!("10.42.{}.{}", n / 200, n % 200 + 1)).collect();
            let rules = rules(cluster_ip(), &pods.iter().map(String::as_str).collect::<Vec<_>>());
            let start = rules.elements[&("service_ips", "10.43.0.9 . tcp . 80".to_owned())].strip_prefix("goto ").unwrap();
            let mut shares = BTreeMap::new();
            share(&rules, start, 1.0, &mut shares);
            assert_eq!(shares.len(), count);
            assert!(shares.values().all(|share: &f64| (share * count as f64 - 1.0).abs() < 1e-9), "{shares:?}");
        }
    }

    /// Follows a chain as the kernel would, and notes with what probability it comes to each endpoint.
    fn share(rules: &RuleSet, chain: &str, mut probability: f64, shares: &mut BTreeMap<String, f64>) {
        for rule in rules.chains[chain].lines().filter(|rule| !rule.contains("mark_masquerade")) {
            let words: Vec<&str> = rule.split(' ').collect();
            let (taken, next) = match words.as_slice() {
                ["numgen", "random", "mod", left, "==", "0", "goto", next] => (1.0 / left.parse::<f64>().unwrap(), *next),
                ["numgen", "random", "mod", left, "<", part, "goto", next] => {
                    (part.parse::<f64>().unwrap() / left.parse::<f64>().unwrap(), *next)
                }
                ["goto", next] => (1.0, *next),
                _ => panic!("{rule}"),
            };
            match next.starts_with("ep_") {
                true => *shares.entry(next.to_owned()).or_default() += probability * taken,
                false => share(rules, next, probability * taken, shares),
            }
            probability *= 1.0 - taken;
        }
    }

    #[test]
    fn changes_of_services_go_to_the_kernel_directly() {
        let mut spec = cluster_ip();
        spec["sessionAffinity"] = json!("ClientIP");
        spec["externalIPs"] = json!(["198.51.100.7"]);
        spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
        let many: Vec<String> = (1..=100).map(|n| format!("10.42.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut local = spec.clone();
        local["externalTrafficPolicy"] = json!("Local");
        let states =
            [RuleSet::default(), rules(spec.clone(), &[]), rules(spec.clone(), &["10.42.0.2"]), rules(spec, &many), rules(local, &many)];
        for (old, new) in states.iter().flat_map(|old| states.iter().map(move |new| (old, new))).filter(|(old, new)| old != new) {
            let mut transaction = Transaction::new(trireme_nft::Family::Ip, TABLE);
            difference(&mut transaction, old, new);
            assert!(trireme_nft::is_direct(&transaction), "{}", transaction.script().unwrap());
        }
    }

    #[test]
    fn another_timeout_of_affinity_is_another_set() {
        let with = |seconds: u32| {
            let mut spec = cluster_ip();
            spec["sessionAffinity"] = json!("ClientIP");
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
            rules(spec, &["10.42.0.2", "10.42.0.3"])
        };
        let mut transaction = Transaction::new(trireme_nft::Family::Ip, TABLE);
        super::difference(&mut transaction, &with(10), &with(20));
        let script = transaction.script().unwrap();
        let lines = |verb: &str, end: &str| script.lines().filter(|line| line.starts_with(verb) && line.contains(end)).count();
        assert_eq!((lines("add set", "_20 {"), lines("delete set", "8080_10"), lines("add set", "8080_10 {")), (2, 2, 0), "{script}");
    }
}
