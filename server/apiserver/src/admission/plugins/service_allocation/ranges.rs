//! The ranges that Services draw from, and how a free number is picked.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rand::Rng;

/// Random picks before the range is searched from its start.
const RANDOM_PICKS: usize = 32;

/// `--service-cluster-ip-range` and `--service-node-port-range`.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Cluster addresses.
    pub service_cidr: Ipv4Net,
    /// First and last node port.
    pub node_ports: (u16, u16),
}

impl Default for Ranges {
    fn default() -> Ranges {
        Ranges {
            service_cidr: Ipv4Net::new(Ipv4Addr::new(10, 43, 0, 0), 16).expect("invariant: 16 is a prefix length"),
            node_ports: (30000, 32767),
        }
    }
}

// === impl Ranges ===

impl Ranges {
    fn first_ip(&self) -> u32 {
        u32::from(self.service_cidr.network()).saturating_add(1)
    }

    fn last_ip(&self) -> u32 {
        u32::from(self.service_cidr.broadcast()).saturating_sub(1).max(self.first_ip())
    }

    /// Whether Services may have this address.
    pub fn holds(&self, ip: Ipv4Addr) -> bool {
        (self.first_ip()..=self.last_ip()).contains(&u32::from(ip))
    }

    /// A free address.
    pub(super) fn pick_ip(&self, taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let (first, last) = (self.first_ip(), self.last_ip());
        let band = static_band(last - first + 1, 16, 256, 16);
        pick(first, last, band, |n| !taken(Ipv4Addr::from(n))).map(Ipv4Addr::from)
    }

    /// A free node port.
    pub(super) fn pick_port(&self, free: impl Fn(u16) -> bool) -> Option<u16> {
        let (low, high) = (u32::from(self.node_ports.0), u32::from(self.node_ports.1));
        let band = static_band((high + 1).saturating_sub(low), 16, 128, 32);
        pick(low, high, band, |n| u16::try_from(n).is_ok_and(&free)).and_then(|n| u16::try_from(n).ok())
    }
}

/// Size of the part of a range of `size` that dynamic allocation leaves alone while it can.
fn static_band(size: u32, low: u32, high: u32, step: u32) -> u32 {
    if size <= low { 0 } else { (size / step).clamp(low, high) }
}

/// A free number: at random above the band, then in order above it, then in the band.
fn pick(first: u32, last: u32, band: u32, free: impl Fn(u32) -> bool) -> Option<u32> {
    let start = first.saturating_add(band);
    if start <= last {
        for _ in 0..RANDOM_PICKS {
            let n = rand::rng().random_range(start..=last);
            if free(n) {
                return Some(n);
            }
        }
    }
    (start..=last).chain(first..start.min(last.saturating_add(1))).find(|n| free(*n))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn bands_and_exhaustion() {
        assert_eq!((static_band(65534, 16, 256, 16), static_band(254, 16, 256, 16), static_band(14, 16, 256, 16)), (256, 16, 0));
        assert_eq!(static_band(2768, 16, 128, 32), 86);
        let ranges = Ranges { service_cidr: "10.0.0.0/29".parse().unwrap(), node_ports: (30000, 30002) };
        let mut used: HashSet<Ipv4Addr> = HashSet::new();
        while let Some(ip) = ranges.pick_ip(|ip| used.contains(&ip)) {
            assert!(ranges.holds(ip) && used.insert(ip));
        }
        assert_eq!(used.len(), 6);
        assert_eq!(ranges.pick_port(|p| p == 30001), Some(30001));
        assert_eq!(ranges.pick_port(|_| false), None);
    }
}
