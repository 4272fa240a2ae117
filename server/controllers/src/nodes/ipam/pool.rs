//! Which subnets of the cluster's networks are in use, and by which node. No I/O.
//!
//! A subnet is found without looking at all nodes: a burst of nodes costs the same for each of them.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The pod networks of all nodes.
#[derive(Debug, Default)]
pub(super) struct Pool {
    ranges: Vec<Range>,
    nodes: HashMap<String, Vec<IpNet>>,
}

impl Pool {
    /// Cut from these networks, in subnets with these prefix lengths; `reserved` is given to no node.
    pub(super) fn new(clusters: impl IntoIterator<Item = (IpNet, u8)>, reserved: Option<IpNet>) -> Pool {
        let mut ranges: Vec<Range> = clusters.into_iter().map(|(cluster, mask)| Range::new(cluster, mask)).collect();
        for range in &mut ranges {
            reserved.iter().for_each(|net| range.take(net));
        }
        Pool { ranges, nodes: HashMap::new() }
    }

    /// The node has these networks and no others.
    pub(super) fn set(&mut self, node: &str, networks: Vec<IpNet>) {
        if self.nodes.get(node) == Some(&networks) {
            return;
        }
        self.forget(node);
        for range in &mut self.ranges {
            networks.iter().for_each(|net| range.take(net));
        }
        self.nodes.insert(node.to_owned(), networks);
    }

    /// The node is gone, and its networks are free.
    pub(super) fn forget(&mut self, node: &str) {
        let networks = self.nodes.remove(node).unwrap_or_default();
        for range in &mut self.ranges {
            networks.iter().for_each(|net| range.release(net));
        }
    }

    /// One network of each range for a node: those that it has, or the first free ones. None if a range is used up.
    pub(super) fn give(&mut self, node: &str) -> Option<Vec<IpNet>> {
        if let Some(networks) = self.nodes.get(node) {
            return Some(networks.clone());
        }
        let networks: Vec<IpNet> = self.ranges.iter_mut().map(Range::first_free).collect::<Option<_>>()?;
        self.set(node, networks.clone());
        Some(networks)
    }
}

/// The subnets of one network, numbered from its start.
#[derive(Debug)]
struct Range {
    cluster: IpNet,
    mask: u8,
    /// How many subnets there are; 0 if the mask does not fit.
    count: u128,
    /// Subnets in use, with the number of users.
    taken: HashMap<u128, usize>,
    /// Networks in use that are wider than a subnet: the first and the last subnet of each.
    wide: Vec<(u128, u128)>,
    /// All subnets before this one are in use.
    from: u128,
}

impl Range {
    fn new(cluster: IpNet, mask: u8) -> Range {
        let fits = mask >= cluster.prefix_len() && mask <= cluster.max_prefix_len();
        let count = if fits { 1_u128.checked_shl(u32::from(mask - cluster.prefix_len())).unwrap_or(u128::MAX) } else { 0 };
        Range { cluster, mask, count, taken: HashMap::new(), wide: Vec::new(), from: 0 }
    }

    /// The subnets that a network overlaps with.
    fn span(&self, net: &IpNet) -> Option<(u128, u128)> {
        let overlaps = self.cluster.contains(&net.network()) || net.contains(&self.cluster.network());
        if self.count == 0 || !overlaps {
            return None;
        }
        let shift = u32::from(self.cluster.max_prefix_len() - self.mask);
        let number = |address: IpAddr| bits(address).saturating_sub(bits(self.cluster.network())).checked_shr(shift).unwrap_or(0);
        Some((number(net.network()), number(net.broadcast()).min(self.count - 1)))
    }

    fn take(&mut self, net: &IpNet) {
        match self.span(net) {
            Some((first, last)) if first == last => *self.taken.entry(first).or_default() += 1,
            Some(span) => self.wide.push(span),
            None => {}
        }
    }

    fn release(&mut self, net: &IpNet) {
        let Some(span) = self.span(net) else { return };
        if span.0 == span.1 {
            if let Some(users) = self.taken.get_mut(&span.0) {
                *users -= 1;
                if *users == 0 {
                    self.taken.remove(&span.0);
                }
            }
        } else if let Some(at) = self.wide.iter().position(|wide| *wide == span) {
            self.wide.swap_remove(at);
        }
        self.from = self.from.min(span.0);
    }

    fn first_free(&mut self) -> Option<IpNet> {
        while self.from < self.count {
            if self.taken.contains_key(&self.from) {
                self.from += 1;
            } else if let Some((_, last)) = self.wide.iter().find(|(first, last)| (*first..=*last).contains(&self.from)) {
                self.from = last + 1;
            } else {
                return self.subnet(self.from);
            }
        }
        None
    }

    fn subnet(&self, number: u128) -> Option<IpNet> {
        let step = 1_u128.checked_shl(u32::from(self.cluster.max_prefix_len() - self.mask))?;
        let base = bits(self.cluster.network()) + number * step;
        Some(match self.cluster {
            IpNet::V4(_) => IpNet::V4(Ipv4Net::new(u32::try_from(base).ok()?.into(), self.mask).ok()?),
            IpNet::V6(_) => IpNet::V6(Ipv6Net::new(base.into(), self.mask).ok()?),
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn pool(cluster: &str, mask: u8, used: &[&str]) -> Pool {
        let mut pool = Pool::new([(net(cluster), mask)], Some(net("10.43.0.0/16")));
        for (nth, used) in used.iter().enumerate() {
            pool.set(&format!("used-{nth}"), vec![net(used)]);
        }
        pool
    }

    fn first(pool: &mut Pool) -> Option<String> {
        pool.give("new").map(|networks| networks[0].to_string())
    }

    #[test]
    fn networks_are_given_in_order_and_never_overlap() {
        let used = ["10.42.0.0/24", "10.42.2.0/24", "10.43.0.0/16"];
        assert_eq!(first(&mut pool("10.42.0.0/16", 24, &used)).unwrap(), "10.42.1.0/24");
        let wide = [used[0], used[1], "10.42.0.0/18"];
        assert_eq!(first(&mut pool("10.42.0.0/16", 24, &wide)).unwrap(), "10.42.64.0/24");
        let mut narrow = pool("10.42.0.0/16", 24, &["10.42.0.128/25", "10.42.1.7/32"]);
        assert_eq!(first(&mut narrow).unwrap(), "10.42.2.0/24");
        assert_eq!(first(&mut pool("10.42.0.0/16", 24, &["10.0.0.0/8"])), None);
        assert_eq!(first(&mut pool("fd00::/56", 64, &["fd00::/64"])).unwrap(), "fd00:0:0:1::/64");
        assert_eq!(first(&mut pool("10.42.0.0/16", 12, &[])), None, "a node cannot get more than there is");
        let full: Vec<String> = (0..256).map(|nth| format!("10.42.{nth}.0/24")).collect();
        let full: Vec<&str> = full.iter().map(String::as_str).collect();
        assert_eq!(first(&mut pool("10.42.0.0/16", 24, &full)), None);
        assert_eq!(first(&mut pool("10.42.0.0/16", 24, &full[..255])).unwrap(), "10.42.255.0/24");
        assert_eq!(first(&mut pool("10.42.0.0/15", 24, &full)), None, "the reserved network is given to nobody");
    }

    #[test]
    fn what_a_node_had_is_free_when_it_goes_and_its_own_until_then() {
        let mut pool = pool("10.42.0.0/16", 24, &["10.42.0.0/24", "10.42.1.0/24", "10.42.4.0/22"]);
        let given = pool.give("new").unwrap();
        assert_eq!((given[0].to_string().as_str(), pool.give("new").unwrap()), ("10.42.2.0/24", given));
        pool.forget("used-0");
        assert_eq!(pool.give("other").unwrap(), [net("10.42.0.0/24")]);
        pool.forget("used-2");
        pool.forget("used-2");
        let rest: Vec<String> = (0..3).map(|nth| pool.give(&format!("more-{nth}")).unwrap()[0].to_string()).collect();
        assert_eq!(rest, ["10.42.3.0/24", "10.42.4.0/24", "10.42.5.0/24"]);
        // Two nodes with one network, as an administrator may write it: it is free when both are gone.
        pool.set("one", vec![net("10.42.6.0/24")]);
        pool.set("two", vec![net("10.42.6.0/24")]);
        pool.forget("one");
        assert_eq!(pool.give("last").unwrap(), [net("10.42.7.0/24")]);
        pool.set("two", vec![net("10.42.9.0/24")]);
        assert_eq!(pool.give("very-last").unwrap(), [net("10.42.6.0/24")]);
    }

    #[test]
    fn a_node_gets_a_network_of_each_family_or_none() {
        let mut pool = Pool::new([(net("10.42.0.0/23"), 24), (net("fd00::/63"), 64)], None);
        assert_eq!(pool.give("a").unwrap(), [net("10.42.0.0/24"), net("fd00::/64")]);
        pool.set("other", vec![net("fd00:0:0:1::/64")]);
        assert_eq!(pool.give("b"), None);
        pool.forget("other");
        assert_eq!(pool.give("b").unwrap(), [net("10.42.1.0/24"), net("fd00:0:0:1::/64")]);
    }
}
