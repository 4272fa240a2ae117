//! Networks with exceptions, as ranges that do not overlap.

use std::net::Ipv4Addr;

/// A range of addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// The addresses of a network in CIDR notation; None where it is not an IPv4 network.
    pub fn of_network(cidr: &str) -> Option<Range> {
        let (address, length) = cidr.split_once('/')?;
        let (address, length): (Ipv4Addr, u32) = (address.parse().ok()?, length.parse().ok()?);
        let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
        (length <= 32).then(|| Range { first: u32::from(address) & !hosts, last: u32::from(address) | hosts })
    }

    /// As nft writes it.
    pub fn element(self) -> String {
        let (first, last) = (Ipv4Addr::from(self.first), Ipv4Addr::from(self.last));
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }

    /// Whether an address is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address))
    }
}

/// What is left of a network without its exceptions, in order. Exceptions outside of it take nothing away.
pub fn without(network: Range, exceptions: &[Range]) -> Vec<Range> {
    let mut exceptions = exceptions.to_vec();
    exceptions.sort_unstable();
    let mut left = Vec::new();
    // The next address that is not yet decided; None beyond the last of all addresses.
    let mut next = Some(network.first);
    for exception in exceptions {
        let Some(first) = next else { break };
        if exception.last < first || exception.first > network.last {
            continue;
        }
        if exception.first > first {
            left.push(Range { first, last: exception.first - 1 });
        }
        next = exception.last.checked_add(1);
    }
    left.extend(next.filter(|first| *first <= network.last).map(|first| Range { first, last: network.last }));
    left
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn ranges(network: &str, exceptions: &[&str]) -> Vec<String> {
        let exceptions: Vec<Range> = exceptions.iter().filter_map(|e| Range::of_network(e)).collect();
        without(Range::of_network(network).unwrap(), &exceptions).into_iter().map(Range::element).collect()
    }

    #[test]
    fn exceptions_are_cut_out() {
        assert_eq!(ranges("10.0.0.0/24", &[]), ["10.0.0.0-10.0.0.255"]);
        assert_eq!(ranges("10.0.0.0/24", &["10.0.0.5/32"]), ["10.0.0.0-10.0.0.4", "10.0.0.6-10.0.0.255"]);
        assert_eq!(ranges("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.0/26"]), ["10.0.0.128-10.0.0.255"]);
        assert_eq!(ranges("0.0.0.0/0", &["128.0.0.0/1", "0.0.0.0/32"]), ["0.0.0.1-127.255.255.255"]);
        assert_eq!(ranges("10.0.0.0/24", &["0.0.0.0/0"]), [""; 0]);
        assert_eq!(ranges("10.0.0.7/32", &["192.168.0.0/16"]), ["10.0.0.7"]);
        assert!(["fd00::/8", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", ""].iter().all(|text| Range::of_network(text).is_none()));
    }

    proptest! {
        #[test]
        fn an_address_is_left_if_it_is_in_the_network_and_in_no_exception(
            network in (any::<u32>(), 24u32..=32), exceptions in prop::collection::vec((0u32..512, 24u32..=32), 0..6), probe in 0u32..512,
        ) {
            let base = network.0 & 0xffff_fe00;
            let range = |address: u32, length: u32| Range::of_network(&format!("{}/{length}", Ipv4Addr::from(address))).unwrap();
            let whole = range(network.0, network.1);
            let exceptions: Vec<Range> = exceptions.iter().map(|(offset, length)| range(base + offset, *length)).collect();
            let left = without(whole, &exceptions);
            let address = Ipv4Addr::from(base + probe);
            let expected = whole.contains(address) && !exceptions.iter().any(|e| e.contains(address));
            prop_assert_eq!(left.iter().filter(|range| range.contains(address)).count(), usize::from(expected));
        }
    }
}
