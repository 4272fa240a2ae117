//! What the kernel holds, Service by Service, so that a change costs as much as its Service and not as much as the cluster.
//!
//! Two Services may ask for the same element: an external address that both name, or a node port that moves from one to the other. The
//! first by namespace and name has it. What else a change touches is found by the elements that Services share.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use trireme_client::ObjectKey;

use crate::{
    compile, ordinary,
    ruleset::{NodeView, RuleSet},
    services::{Balanced, Protocol},
};

/// What one Service needs in the table. Empty for a Service that has no rules, or is gone.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Part {
    rules: RuleSet,
    /// Its UDP endpoints: their flows are forgotten when they go.
    udp: BTreeSet<Ipv4Addr>,
}

/// All parts that are loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    parts: BTreeMap<ObjectKey, Part>,
    /// Who asks for an element, in any order.
    holders: HashMap<Element, Vec<ObjectKey>>,
    /// UDP endpoint → Services that have it.
    udp: HashMap<Ipv4Addr, usize>,
    /// Endpoint → Services that need its pair in the table.
    hairpins: HashMap<Ipv4Addr, usize>,
    /// The chains for all Services that are there.
    shared_chains: BTreeSet<String>,
}

/// A map or set, and the key in it.
type Element = (&'static str, String);

// === impl Part ===

impl Part {
    /// The part of a Service with these ports.
    pub fn of(ports: &[Balanced], node: &NodeView) -> Self {
        let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
        let udp = udp.flat_map(|port| port.internal.iter().chain(&port.external)).map(|target| target.address).collect();
        Self { rules: compile::build(ports, node), udp }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What other Services may ask for too.
    fn elements(&self) -> impl Iterator<Item = Element> {
        let ips = self.rules.cluster_ips.iter().map(|ip| ("cluster_ips", ip.to_string()));
        // An endpoint's element belongs to the Service that holds the verdict element with the same address and port.
        let is_endpoint = |map: &str| ordinary::ENDPOINTS.iter().any(|(addresses, node_ports)| map == *addresses || map == *node_ports);
        self.rules.elements.keys().filter(move |(map, _)| !is_endpoint(map)).cloned().chain(ips)
    }
}

// === impl Loaded ===

impl Loaded {
    /// The Services that have rules.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.parts.keys()
    }

    /// The rules before and after these changes, of the changed Services and of those that share elements with them.
    pub fn difference(&self, changes: &BTreeMap<ObjectKey, Part>) -> (RuleSet, RuleSet) {
        let affected = self.affected(changes);
        let old = affected.iter().filter_map(|key| self.parts.get(*key));
        let new = affected.iter().filter_map(|key| changes.get(*key).or_else(|| self.parts.get(*key)));
        let (mut old, mut new) = (merged(old), merged(new));
        new.shared_chains.retain(|name, _| !self.shared_chains.contains(name));
        old.shared_chains.clear();
        (old.hairpins, new.hairpins) = self.changed_hairpins(changes);
        (old, new)
    }

    /// The endpoints whose last Service goes, and those whose first one comes.
    fn changed_hairpins(&self, changes: &BTreeMap<ObjectKey, Part>) -> (BTreeSet<Ipv4Addr>, BTreeSet<Ipv4Addr>) {
        let mut counts: BTreeMap<Ipv4Addr, (usize, usize)> = BTreeMap::new();
        for (key, part) in changes {
            let old = self.parts.get(key).into_iter().flat_map(|old| &old.rules.hairpins);
            old.for_each(|ip| counts.entry(*ip).or_default().0 += 1);
            part.rules.hairpins.iter().for_each(|ip| counts.entry(*ip).or_default().1 += 1);
        }
        let (mut gone, mut come) = (BTreeSet::new(), BTreeSet::new());
        for (ip, (leave, arrive)) in counts {
            let before = self.hairpins.get(&ip).copied().unwrap_or_default();
            match (before > 0, before + arrive > leave) {
                (true, false) => drop(gone.insert(ip)),
                (false, true) => drop(come.insert(ip)),
                _ => {}
            }
        }
        (gone, come)
    }

    /// Takes the changes as loaded. Returns the UDP endpoints that no Service has any more.
    pub fn apply(&mut self, changes: BTreeMap<ObjectKey, Part>) -> Vec<Ipv4Addr> {
        let mut left = Vec::new();
        for (key, part) in changes {
            for address in &part.udp {
                *self.udp.entry(*address).or_default() += 1;
            }
            for address in &part.rules.hairpins {
                *self.hairpins.entry(*address).or_default() += 1;
            }
            self.shared_chains.extend(part.rules.shared_chains.keys().cloned());
            for element in part.elements() {
                self.holders.entry(element).or_default().push(key.clone());
            }
            let old = if part.is_empty() { self.parts.remove(&key) } else { self.parts.insert(key.clone(), part) };
            let Some(old) = old else { continue };
            for element in old.elements() {
                self.let_go(element, &key);
            }
            for address in &old.rules.hairpins {
                count_down(&mut self.hairpins, *address);
            }
            left.extend(old.udp);
        }
        left.retain(|address| count_down(&mut self.udp, *address));
        left
    }

    fn affected<'a>(&'a self, changes: &'a BTreeMap<ObjectKey, Part>) -> BTreeSet<&'a ObjectKey> {
        let mut affected: BTreeSet<&ObjectKey> = changes.keys().collect();
        let mut unseen: Vec<&ObjectKey> = changes.keys().collect();
        while let Some(key) = unseen.pop() {
            let parts = self.parts.get(key).into_iter().chain(changes.get(key));
            for element in parts.flat_map(Part::elements) {
                let others = self.holders.get(&element).into_iter().flatten();
                unseen.extend(others.filter(|other| affected.insert(other)));
            }
        }
        affected
    }

    /// One of the Services that have the element has it no more.
    fn let_go(&mut self, element: Element, key: &ObjectKey) {
        let Some(holders) = self.holders.get_mut(&element) else { return };
        if let Some(place) = holders.iter().position(|holder| holder == key) {
            holders.swap_remove(place);
        }
        if holders.is_empty() {
            self.holders.remove(&element);
        }
    }
}

/// One of the Services that have the endpoint has it no more; true if it was the last one.
fn count_down(counts: &mut HashMap<Ipv4Addr, usize>, address: Ipv4Addr) -> bool {
    let Some(count) = counts.get_mut(&address) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(&address);
    }
    is_last
}

/// All of them in one; the first has what several ask for.
fn merged<'a>(parts: impl Iterator<Item = &'a Part>) -> RuleSet {
    let mut all = RuleSet::default();
    for Part { rules, .. } in parts {
        for (element, verdict) in &rules.elements {
            all.elements.entry(element.clone()).or_insert_with(|| verdict.clone());
        }
        all.chains.extend(rules.chains.iter().map(|(name, body)| (name.clone(), body.clone())));
        all.affinity_sets.extend(rules.affinity_sets.iter().map(|(name, timeout)| (name.clone(), *timeout)));
        all.shared_chains.extend(rules.shared_chains.iter().map(|(name, body)| (name.clone(), body.clone())));
        all.cluster_ips.extend(&rules.cluster_ips);
        all.hairpins.extend(&rules.hairpins);
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::services::Target;

    fn key(n: u8) -> ObjectKey {
        ObjectKey::new("ns", &format!("s{n}"))
    }

    fn node() -> NodeView {
        NodeView { cluster_cidr: "10.42.0.0/16".parse().unwrap(), service_cidr: None, node_port_networks: Vec::new(), translated: None }
    }

    /// A port of Service `n`; `external` and `node_port` may be those of another one.
    fn port(n: u8, protocol: Protocol, external: Option<u8>, node_port: Option<u8>, endpoints: &[u8]) -> Balanced {
        let targets: Vec<Target> = endpoints.iter().map(|e| Target { address: [10, 42, 0, *e].into(), port: 8080 }).collect();
        Balanced {
            id: format!("{}:", key(n)),
            protocol,
            port: 80,
            cluster_ip: [10, 43, 0, n].into(),
            external_ips: external.iter().map(|e| [192, 0, 2, *e].into()).collect(),
            balancer_ips: Vec::new(),
            source_ranges: None,
            node_port: node_port.map(|p| 30_000 + u16::from(p)),
            affinity_secs: (n == 1).then_some(60),
            internal: targets.clone(),
            external: targets.clone(),
            everywhere: targets,
            external_local: false,
        }
    }

    /// What a Service wants. None: it is gone.
    fn wish() -> impl Strategy<Value = Option<Wish>> {
        let external = prop_oneof![Just(None), (0_u8..3).prop_map(Some)];
        let node_port = prop_oneof![Just(None), (0_u8..3).prop_map(Some)];
        let endpoints = prop::collection::vec(2_u8..6, 0..3);
        let wish = (any::<bool>(), external, node_port, endpoints);
        let wish = wish.prop_map(|(udp, external, node_port, endpoints)| Some(Wish { udp, external, node_port, endpoints }));
        prop_oneof![1 => Just(None), 4 => wish]
    }

    #[derive(Debug, Clone)]
    struct Wish {
        udp: bool,
        external: Option<u8>,
        node_port: Option<u8>,
        endpoints: Vec<u8>,
    }

    /// Applies a difference to a copy of the table, as the kernel would: what is removed must be there.
    fn applied(table: &mut RuleSet, old: &RuleSet, new: &RuleSet) {
        for (element, verdict) in &old.elements {
            assert_eq!(table.elements.remove(element).as_ref(), Some(verdict), "{element:?}");
        }
        for (name, body) in &old.chains {
            assert_eq!(table.chains.remove(name).as_ref(), Some(body));
        }
        for name in old.affinity_sets.keys() {
            assert!(table.affinity_sets.remove(name).is_some());
        }
        for ip in &old.cluster_ips {
            assert!(table.cluster_ips.remove(ip));
        }
        for ip in &old.hairpins {
            assert!(table.hairpins.remove(ip));
        }
        for ip in &new.hairpins {
            assert!(table.hairpins.insert(*ip));
        }
        for (name, body) in &new.shared_chains {
            assert_eq!(table.shared_chains.insert(name.clone(), body.clone()), None, "{name} is there");
        }
        for (element, verdict) in &new.elements {
            assert_eq!(table.elements.insert(element.clone(), verdict.clone()), None, "{element:?} belongs to another Service");
        }
        table.chains.extend(new.chains.clone());
        table.affinity_sets.extend(new.affinity_sets.clone());
        table.cluster_ips.extend(&new.cluster_ips);
    }

    proptest! {
        #[test]
        fn steps_lead_to_the_table_that_all_services_together_make(
            steps in prop::collection::vec(prop::collection::vec((0_u8..5, wish()), 1..4), 1..12)
        ) {
            let (mut loaded, mut table) = (Loaded::default(), RuleSet::default());
            let mut services: BTreeMap<ObjectKey, Part> = BTreeMap::new();
            for step in steps {
                let before: BTreeSet<Ipv4Addr> = services.values().flat_map(|part| part.udp.iter().copied()).collect();
                let mut changes = BTreeMap::new();
                for (n, wish) in step {
                    let part = wish.map(|Wish { udp, external, node_port, endpoints }| {
                        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                        Part::of(&[port(n, protocol, external, node_port, &endpoints)], &node())
                    });
                    changes.insert(key(n), part.unwrap_or_default());
                }
                services.extend(changes.clone());
                let (old, new) = loaded.difference(&changes);
                applied(&mut table, &old, &new);
                let gone: BTreeSet<Ipv4Addr> = loaded.apply(changes).into_iter().collect();
                let after: BTreeSet<Ipv4Addr> = services.values().flat_map(|part| part.udp.iter().copied()).collect();
                let mut wanted = merged(services.values());
                prop_assert!(wanted.shared_chains.keys().all(|name| table.shared_chains.contains_key(name)));
                wanted.shared_chains.clone_from(&table.shared_chains);
                prop_assert_eq!(&table, &wanted);
                prop_assert_eq!(gone, before.difference(&after).copied().collect::<BTreeSet<_>>());
            }
            let end: BTreeMap<ObjectKey, Part> = services.keys().map(|key| (key.clone(), Part::default())).collect();
            loaded.apply(end);
            prop_assert!(loaded.parts.is_empty() && loaded.holders.is_empty() && loaded.udp.is_empty() && loaded.hairpins.is_empty());
        }
    }

    #[test]
    fn a_change_leaves_other_services_alone() {
        let mut loaded = Loaded::default();
        let all = (0..50).map(|n| (key(n), Part::of(&[port(n, Protocol::Tcp, None, None, &[2, 3])], &node()))).collect();
        loaded.apply(all);
        let changes = BTreeMap::from([(key(7), Part::of(&[port(7, Protocol::Tcp, None, None, &[2])], &node()))]);
        let (old, new) = loaded.difference(&changes);
        assert_eq!((old.cluster_ips.len(), new.cluster_ips.len(), new.elements.len()), (1, 1, 2));
    }
}
