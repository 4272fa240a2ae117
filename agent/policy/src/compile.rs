//! From policies to chains, sets and verdicts.
//!
//! Each isolated pod of this node has a chain for each direction, which jumps to the chains of the policies that select it and ends with a drop.
//! A policy's chain has one rule for each pair of peer and port. Peers are sets of addresses, named after what selects them: policies that
//! select the same peers share a set, and a pod that comes or goes changes elements, not rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
};

use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use sha2::{Digest, Sha256};
use trireme_client::{Object, labels};

use crate::{
    ranges::{self, Range},
    ruleset::{EGRESS, INGRESS, RuleSet, Set, SetKind, TO_INGRESS},
    state::{Pod, State},
};

/// A direction, seen from the pod that is isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// Peers and ports that one policy may have in one direction, all rules together.
const MOST_PARTS: usize = 2000;

/// The rules of this node.
pub fn compile(state: &State) -> RuleSet {
    let mut compiler = Compiler { state, rules: RuleSet::default() };
    // Pod and direction → the chains of its policies.
    let mut isolated: BTreeMap<(Ipv4Addr, &'static str), BTreeSet<String>> = BTreeMap::new();
    for policy in &state.policies {
        let addresses = compiler.selected(policy);
        if addresses.is_empty() {
            continue;
        }
        for direction in directions(policy) {
            let chain = compiler.add_policy(policy, direction);
            for address in &addresses {
                isolated.entry((*address, direction.map())).or_default().insert(chain.clone());
            }
        }
    }
    for ((address, map), policies) in isolated {
        compiler.add_pod(address, map, &policies);
    }
    compiler.rules
}

/// The directions that a policy restricts. The API server sets `policyTypes` by default; an object without it is read by the same rule.
fn directions(policy: &NetworkPolicy) -> Vec<Direction> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    match spec.policy_types.as_deref() {
        Some(types) => {
            let known = [("Ingress", Direction::Ingress), ("Egress", Direction::Egress)];
            known.into_iter().filter(|(name, _)| types.iter().any(|t| t == name)).map(|(_, direction)| direction).collect()
        }
        None if spec.egress.is_some() => vec![Direction::Ingress, Direction::Egress],
        None => vec![Direction::Ingress],
    }
}

struct Compiler<'a> {
    state: &'a State,
    rules: RuleSet,
}

impl Compiler<'_> {
    /// Addresses of this node's pods that a policy selects.
    fn selected(&self, policy: &NetworkPolicy) -> Vec<Ipv4Addr> {
        let Some(selector) = policy.spec.as_ref().map(|spec| spec.pod_selector.clone().unwrap_or_default()) else { return Vec::new() };
        let pods = self.state.pods.get(policy.namespace()).into_iter().flatten();
        pods.filter(|pod| pod.is_local && selects(&selector, pod)).flat_map(|pod| pod.addresses.iter().copied()).collect()
    }

    /// The chain of one policy.
    fn add_policy(&mut self, policy: &NetworkPolicy, direction: Direction) -> String {
        let chain = name(direction.policy_prefix(), &[policy.namespace(), policy.name()]);
        let spec = policy.spec.as_ref();
        let mut body = Vec::new();
        let mut left = MOST_PARTS;
        match direction {
            Direction::Ingress => {
                for rule in spec.and_then(|spec| spec.ingress.as_deref()).unwrap_or_default() {
                    self.add_rules(policy, direction, (&chain, &mut body, &mut left), rule.from.as_deref(), rule.ports.as_deref());
                }
            }
            Direction::Egress => {
                for rule in spec.and_then(|spec| spec.egress.as_deref()).unwrap_or_default() {
                    self.add_rules(policy, direction, (&chain, &mut body, &mut left), rule.to.as_deref(), rule.ports.as_deref());
                }
            }
        }
        self.rules.chains.insert(chain.clone(), body);
        chain
    }

    /// Adds what one rule of a policy allows. A rule with several peers and several ports puts its ports into a separate chain. The
    /// number of nftables rules is then the sum of the two lists and not their product.
    fn add_rules(
        &mut self,
        policy: &NetworkPolicy,
        direction: Direction,
        (chain, body, left): (&str, &mut Vec<String>, &mut usize),
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) {
        let (peers, ports) = (peers.unwrap_or_default(), ports.unwrap_or_default());
        let parts = peers.len().max(1) + ports.len().max(1);
        if parts > *left {
            self.rules.cut.insert(format!("{}/{}", policy.namespace(), policy.name()));
            *left = 0;
            return;
        }
        *left -= parts;
        let (peers, ports) = (self.peers(policy.namespace(), peers, direction), self.ports(ports));
        let verdict = direction.verdict();
        let rule = |peer: &str, rest: &str| format!("{peer} {rest}").trim_start().to_owned();
        if let ([_, _, ..], [_, _, ..]) = (peers.as_slice(), ports.as_slice()) {
            let own = format!("{chain}_{}", body.len());
            body.extend(peers.iter().map(|peer| rule(peer, &format!("jump {own}"))));
            self.rules.chains.insert(own, ports.iter().map(|port| rule(port, verdict)).collect());
            return;
        }
        for peer in &peers {
            body.extend(ports.iter().map(|port| rule(peer, &rule(port, verdict))));
        }
    }

    /// The chain of one pod and direction.
    fn add_pod(&mut self, address: Ipv4Addr, map: &'static str, policies: &BTreeSet<String>) {
        let (prefix, itself) = match map {
            INGRESS => ("in", format!("ip saddr {address} accept")),
            _ => ("out", format!("ip daddr {address} goto {TO_INGRESS}")),
        };
        let chain = format!("{prefix}_{}", address.to_string().replace('.', "_"));
        let jumps = policies.iter().map(|policy| format!("jump {policy}"));
        let body = std::iter::once(itself).chain(jumps).chain(["counter drop".to_owned()]).collect();
        self.rules.chains.insert(chain.clone(), body);
        self.rules.verdicts.insert((map, address), chain);
    }

    /// Matches for these peers: one with nothing in it stands for everybody.
    fn peers(&mut self, namespace: &str, peers: &[NetworkPolicyPeer], direction: Direction) -> Vec<String> {
        if peers.is_empty() {
            return vec![String::new()];
        }
        let sets: BTreeSet<String> = peers.iter().filter_map(|peer| self.peer(namespace, peer)).collect();
        sets.into_iter().map(|set| format!("ip {} @{set}", direction.peer_field())).collect()
    }

    /// The set of one peer; None if no IPv4 address can be in it.
    fn peer(&mut self, namespace: &str, peer: &NetworkPolicyPeer) -> Option<String> {
        if let Some(block) = &peer.ip_block {
            return self.block(block);
        }
        let (namespaces, pods) = (peer.namespace_selector.as_ref(), peer.pod_selector.as_ref());
        // Without a selector for namespaces, those of the policy's own.
        let scope = if namespaces.is_some() { "" } else { namespace };
        let set = name("pods", &[scope, &text(namespaces), &text(pods)]);
        if !self.rules.sets.contains_key(&set) {
            let elements = self.addresses(namespace, namespaces, pods);
            self.rules.sets.insert(set.clone(), Set { kind: SetKind::Addresses, elements });
        }
        Some(set)
    }

    fn addresses(&self, namespace: &str, namespaces: Option<&LabelSelector>, pods: Option<&LabelSelector>) -> BTreeSet<String> {
        let is_meant = |name: &str| match namespaces {
            Some(selector) => self.state.namespaces.get(name).is_some_and(|own| labels::matches(selector, Some(own))),
            None => name == namespace,
        };
        let in_them = self.state.pods.iter().filter(|(name, _)| is_meant(name)).flat_map(|(_, pods)| pods);
        let selected = in_them.filter(|pod| pods.is_none_or(|selector| selects(selector, pod)));
        selected.flat_map(|pod| &pod.addresses).map(ToString::to_string).collect()
    }

    fn block(&mut self, block: &IPBlock) -> Option<String> {
        let exceptions: Vec<Range> = block.except.iter().flatten().filter_map(|cidr| Range::of_network(cidr)).collect();
        let left = ranges::without(Range::of_network(&block.cidr)?, &exceptions);
        if left.is_empty() {
            return None;
        }
        let elements: BTreeSet<String> = left.into_iter().map(Range::element).collect();
        let set = name("block", &elements.iter().map(String::as_str).collect::<Vec<_>>());
        self.rules.sets.insert(set.clone(), Set { kind: SetKind::Ranges, elements });
        Some(set)
    }

    /// Matches for these ports: one with nothing in it stands for everything, protocols without ports too.
    fn ports(&mut self, ports: &[NetworkPolicyPort]) -> Vec<String> {
        if ports.is_empty() {
            return vec![String::new()];
        }
        let ports: BTreeSet<String> = ports.iter().filter_map(|port| self.port(port)).collect();
        ports.into_iter().collect()
    }

    fn port(&mut self, port: &NetworkPolicyPort) -> Option<String> {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => "tcp",
            Some("UDP") => "udp",
            Some("SCTP") => "sctp",
            // Refused by the API server.
            Some(_) => return None,
        };
        Some(match (&port.port, port.end_port) {
            (None, _) => format!("meta l4proto {protocol}"),
            (Some(IntOrString::Int(first)), last) if last.is_none_or(|last| last == *first) => {
                format!("{protocol} dport {}", u16::try_from(*first).ok()?)
            }
            (Some(IntOrString::Int(first)), last) => {
                format!("{protocol} dport {}-{}", u16::try_from(*first).ok()?, u16::try_from(last?).ok()?)
            }
            (Some(IntOrString::String(port)), _) => format!("ip daddr . meta l4proto . th dport @{}", self.named(port, protocol)),
        })
    }

    /// Where in the cluster a port of this name and protocol is.
    fn named(&mut self, port: &str, protocol: &str) -> String {
        let set = name("ports", &[port, protocol]);
        if !self.rules.sets.contains_key(&set) {
            let mut elements = BTreeSet::new();
            for pod in self.state.pods.values().flatten() {
                let own = pod.object.ports.iter().filter(|own| own.name == port && own.protocol.eq_ignore_ascii_case(protocol));
                elements.extend(own.flat_map(|own| pod.addresses.iter().map(move |ip| format!("{ip} . {protocol} . {}", own.port))));
            }
            self.rules.sets.insert(set.clone(), Set { kind: SetKind::Ports, elements });
        }
        set
    }
}

impl Direction {
    fn map(self) -> &'static str {
        match self {
            Direction::Ingress => INGRESS,
            Direction::Egress => EGRESS,
        }
    }

    fn policy_prefix(self) -> &'static str {
        match self {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        }
    }

    /// Which address of a packet is the peer's.
    fn peer_field(self) -> &'static str {
        match self {
            Direction::Ingress => "saddr",
            Direction::Egress => "daddr",
        }
    }

    /// What may leave a pod of this node may still not reach another one.
    fn verdict(self) -> &'static str {
        match self {
            Direction::Ingress => "accept",
            Direction::Egress => "goto to_ingress",
        }
    }
}

fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    labels::matches(selector, pod.object.metadata.labels.as_ref())
}

/// A selector as text that no other selector has. Absent and empty differ.
fn text(selector: Option<&LabelSelector>) -> String {
    selector.map_or_else(String::new, |selector| serde_json::to_string(selector).unwrap_or_default())
}

/// A name that is derived from these parts. Tenants choose the parts, so the hash must resist collisions: two selectors with one name would
/// share a set.
fn name(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let mut name = format!("{prefix}_");
    for byte in &hash.finalize()[..16] {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests;
