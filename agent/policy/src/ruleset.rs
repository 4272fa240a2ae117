//! The table's content as data, and the difference between two contents as an nft transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use trireme_nft::{Hook, Transaction};

/// The table's name (family `ip`).
pub const TABLE: &str = "trireme_policy";
/// Leads from a source address to the chain of that pod.
pub const EGRESS: &str = "egress";
/// Leads from a destination address to the chain of that pod.
pub const INGRESS: &str = "ingress";
/// Where packets go on that may leave their pod.
pub const TO_INGRESS: &str = "to_ingress";
const FORWARD: &str = "forward";

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Addresses.
    Addresses,
    /// Ranges of addresses.
    Ranges,
    /// Address, protocol and port.
    Ports,
}

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Of what.
    pub kind: SetKind,
    /// Its elements, as nft writes them.
    pub elements: BTreeSet<String>,
}

/// Everything that changes with policies and pods. The fixed part of the table is [`skeleton`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Chain name → its rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Set name → set. A name belongs to one kind of set.
    pub sets: BTreeMap<String, Set>,
    /// Map and address → chain.
    pub verdicts: BTreeMap<(&'static str, Ipv4Addr), String>,
    /// Policies that exceed the limit of peers and ports. Only their first rules are compiled.
    pub cut: BTreeSet<String>,
}

impl RuleSet {
    /// Whether any pod of this node is isolated.
    fn isolates(&self) -> bool {
        !self.verdicts.is_empty()
    }
}

/// The fixed part. Replaces the whole table.
pub fn skeleton(transaction: &mut Transaction) {
    transaction.replace_table();
    for map in [EGRESS, INGRESS] {
        transaction.add_map(map, "type ipv4_addr : verdict;");
    }
    transaction.add_chain(TO_INGRESS);
    transaction.add_rule(TO_INGRESS, "ip daddr vmap @ingress");
    transaction.add_rule(TO_INGRESS, "accept");
}

/// Adds what turns a table with `old` into one with `new`; nothing if they are equal.
pub fn difference(transaction: &mut Transaction, old: &RuleSet, new: &RuleSet) {
    if old.isolates() && !new.isolates() {
        transaction.flush_chain(FORWARD);
        transaction.delete_chain(FORWARD);
    }
    for (map, address) in old.verdicts.iter().filter(|(key, chain)| new.verdicts.get(key) != Some(chain)).map(|(key, _)| key) {
        transaction.delete_element(map, &address.to_string());
    }
    change_sets(transaction, old, new);
    change_chains(transaction, old, new);
    for ((map, address), chain) in new.verdicts.iter().filter(|(key, chain)| old.verdicts.get(key) != Some(chain)) {
        transaction.add_element(map, &format!("{address} : goto {chain}"));
    }
    remove_rest(transaction, old, new);
    if new.isolates() && !old.isolates() {
        transaction.add_base_chain(FORWARD, Hook { kind: "filter", hook: "forward", priority: 0 });
        transaction.add_rule(FORWARD, "ct state established,related accept");
        transaction.add_rule(FORWARD, "ip saddr vmap @egress");
        transaction.add_rule(FORWARD, "ip daddr vmap @ingress");
    }
}

fn change_sets(transaction: &mut Transaction, old: &RuleSet, new: &RuleSet) {
    let none = BTreeSet::new();
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map_or(&none, |set| &set.elements);
        if !old.sets.contains_key(name) {
            transaction.add_set(
                name,
                match set.kind {
                    SetKind::Addresses => "type ipv4_addr;",
                    SetKind::Ranges => "type ipv4_addr; flags interval;",
                    SetKind::Ports => "type ipv4_addr . inet_proto . inet_service;",
                },
            );
        }
        for element in before.difference(&set.elements) {
            transaction.delete_element(name, element);
        }
        for element in set.elements.difference(before) {
            transaction.add_element(name, element);
        }
    }
}

fn change_chains(transaction: &mut Transaction, old: &RuleSet, new: &RuleSet) {
    let changed: Vec<_> = new.chains.iter().filter(|(name, rules)| old.chains.get(*name) != Some(rules)).collect();
    for (name, _) in &changed {
        transaction.add_chain(name);
        transaction.flush_chain(name);
    }
    for (name, rules) in changed {
        for rule in rules {
            transaction.add_rule(name, rule);
        }
    }
}

/// Chains are emptied before any is deleted: one that another still jumps to cannot be.
fn remove_rest(transaction: &mut Transaction, old: &RuleSet, new: &RuleSet) {
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    for name in &gone {
        transaction.flush_chain(name);
    }
    for name in &gone {
        transaction.delete_chain(name);
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        transaction.delete_set(name);
    }
}
