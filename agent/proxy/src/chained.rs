//! Services with chains of their own: with affinity, policies or source ranges, or with very many endpoints.
//!
//! Such a Service has a chain that picks an endpoint; an endpoint has a chain that rewrites the destination.

use std::{fmt::Write, net::Ipv4Addr};

use crate::{
    ruleset::{NodeView, RuleSet},
    services::{Balanced, Target},
};

/// Up to so many endpoints are chosen among in one chain; more are divided into groups of so many, with a chain for each. Not by an anonymous
/// map: to add one, the kernel looks at all maps of the table, so thousands of them take minutes to load.
const GROUP: usize = 16;

/// Adds the chains and elements of a Service.
pub fn add(rules: &mut RuleSet, service: &Balanced, node: &NodeView) {
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
