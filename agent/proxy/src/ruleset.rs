//! The table's content as data, and the difference between two contents as an nft transaction.
//!
//! Verdict maps lead from (address, protocol, port) to a chain that picks an endpoint in one look-up, however many Services there are. A change of
//! one Service touches its own chains and elements only.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use trireme_nft::Transaction;

/// The table's name (family `ip`).
pub const TABLE: &str = "trireme";

/// Pairs of equal addresses: a pod that reached itself through a Service must see the node's address, or its answer would not come back this way.
pub const HAIRPINS: &str = "hairpins";

/// Everything that changes with the services. The fixed part of the table is [`crate::skeleton`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Chain name → its rules, one a line.
    pub chains: BTreeMap<String, String>,
    /// Chains that several Services share, in the same form. They are made when the first of them needs one, and stay.
    pub shared_chains: BTreeMap<String, String>,
    /// (map, key) → verdict or endpoint.
    pub elements: BTreeMap<(&'static str, String), String>,
    /// Affinity set name → timeout in seconds.
    pub affinity_sets: BTreeMap<String, u32>,
    /// Cluster IPs: what is sent to another port of one of them is rejected.
    pub cluster_ips: BTreeSet<Ipv4Addr>,
    /// Endpoints that need [`HAIRPINS`].
    pub hairpins: BTreeSet<Ipv4Addr>,
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
    for ip in old.hairpins.difference(&new.hairpins) {
        transaction.delete_element(HAIRPINS, &pair(*ip));
    }
    for (name, body) in new.shared_chains.iter().filter(|(name, _)| !old.shared_chains.contains_key(*name)) {
        transaction.add_chain(name);
        body.lines().for_each(|rule| transaction.add_rule(name, rule));
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
    for ip in new.hairpins.difference(&old.hairpins) {
        transaction.add_element(HAIRPINS, &pair(*ip));
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

fn pair(ip: Ipv4Addr) -> String {
    format!("{ip} . {ip}")
}
