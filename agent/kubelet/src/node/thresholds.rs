//! When a node counts as short of memory, disk or process ids: the hard eviction thresholds.
//!
//! Follows <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds>. A crossed threshold
//! sets the node's condition, and the condition its taint; `eviction.rs` ends pods for memory and disk.

use trireme_api::quantity::Quantity;

use crate::machine::{Disk, Space};

/// The signals that are looked at, in the order of the alphabet.
const SIGNALS: [&str; 6] =
    ["imagefs.available", "imagefs.inodesFree", "memory.available", "nodefs.available", "nodefs.inodesFree", "pid.available"];

/// The least that has to be free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Bytes or a count.
    Amount(i64),
    /// A share of the whole in percent, from 0 to 100.
    Percent(f64),
}

impl Threshold {
    const NONE: Threshold = Threshold::Amount(0);

    /// Whether less than this is free. A total of nothing is unknown, and crosses no share of it.
    fn is_crossed(self, space: Space) -> bool {
        match self {
            Threshold::Amount(least) => space.free < least,
            Threshold::Percent(share) => (space.free as f64) < space.total as f64 * share / 100.0,
        }
    }

    /// The amount that it stands for.
    fn of(self, space: Space) -> i64 {
        match self {
            Threshold::Amount(least) => least,
            Threshold::Percent(share) => (space.total as f64 * share / 100.0) as i64,
        }
    }

    fn parse(text: &str) -> Result<Threshold, String> {
        let expected = "expected a quantity such as 100Mi, or a percentage such as 5%";
        if let Some(share) = text.strip_suffix('%') {
            let share: f64 = share.parse().map_err(|_| expected.to_owned())?;
            return if (0.0..=100.0).contains(&share) { Ok(Threshold::Percent(share)) } else { Err("expected between 0% and 100%".into()) };
        }
        let quantity: Quantity = text.parse().map_err(|_| expected.to_owned())?;
        if quantity.sign() < 0 { Err("expected no negative quantity".into()) } else { Ok(Threshold::Amount(quantity.value())) }
    }
}

/// What a node can be short of, and pods give back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    Memory,
    Disk,
}

impl Resource {
    /// Its name in requests and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
        }
    }
}

/// A threshold that is crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Crossed {
    pub(crate) signal: &'static str,
    pub(crate) resource: Resource,
    /// In bytes.
    pub(crate) threshold: i64,
    pub(crate) available: i64,
}

/// A threshold for each signal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvictionThresholds {
    memory: Threshold,
    node_bytes: Threshold,
    node_inodes: Threshold,
    image_bytes: Threshold,
    image_inodes: Threshold,
    pids: Threshold,
}

impl Default for EvictionThresholds {
    /// Memory and inodes as upstream. Disks as k3s: upstream's 10 % and 15 % are much on the large, well-filled disks of small clusters.
    fn default() -> EvictionThresholds {
        EvictionThresholds {
            memory: Threshold::Amount(100 << 20),
            node_bytes: Threshold::Percent(5.0),
            node_inodes: Threshold::Percent(5.0),
            image_bytes: Threshold::Percent(5.0),
            image_inodes: Threshold::Percent(5.0),
            pids: Threshold::Percent(10.0),
        }
    }
}

impl EvictionThresholds {
    /// Reads `memory.available<100Mi,nodefs.available<5%`. As with upstream's `--eviction-hard`, a signal that is not named has no
    /// threshold.
    ///
    /// # Errors
    /// One line that says which part is wrong and what is expected.
    pub fn parse(text: &str) -> Result<EvictionThresholds, String> {
        let none = Threshold::NONE;
        let mut all =
            EvictionThresholds { memory: none, node_bytes: none, node_inodes: none, image_bytes: none, image_inodes: none, pids: none };
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (signal, value) = part.split_once('<').ok_or_else(|| format!("{part}: expected SIGNAL<VALUE,..."))?;
            let place = match signal {
                "memory.available" => &mut all.memory,
                "nodefs.available" => &mut all.node_bytes,
                "nodefs.inodesFree" => &mut all.node_inodes,
                "imagefs.available" => &mut all.image_bytes,
                "imagefs.inodesFree" => &mut all.image_inodes,
                "pid.available" => &mut all.pids,
                _ => return Err(format!("{signal}: no such signal; there are {}", SIGNALS.join(", "))),
            };
            if seen.contains(&signal) {
                return Err(format!("{signal} is given twice"));
            }
            seen.push(signal);
            *place = Threshold::parse(value).map_err(|why| format!("{part}: {why}"))?;
        }
        Ok(all)
    }

    /// The first threshold that is crossed and that pods are evicted for: memory, the node's disk, the images' disk.
    pub(crate) fn crossed(&self, memory: Space, node: Option<Disk>, images: Option<Disk>) -> Option<Crossed> {
        let look = |signal, resource, threshold: Threshold, space: Option<Space>| {
            let space = space.filter(|space| threshold.is_crossed(*space))?;
            Some(Crossed { signal, resource, threshold: threshold.of(space), available: space.free })
        };
        let bytes = |disk: Option<Disk>| disk.map(|disk| disk.bytes);
        look("memory.available", Resource::Memory, self.memory, Some(memory))
            .or_else(|| look("nodefs.available", Resource::Disk, self.node_bytes, bytes(node)))
            .or_else(|| look("imagefs.available", Resource::Disk, self.image_bytes, bytes(images)))
    }

    /// Whether this node is short of memory.
    pub(crate) fn memory_is_short(&self, memory: Space) -> bool {
        self.memory.is_crossed(memory)
    }

    /// Whether this node is short of process ids.
    pub(crate) fn pids_are_short(&self, pids: Space) -> bool {
        self.pids.is_crossed(pids)
    }

    /// Whether the disk of the kubelet's own files, or the one of images where that is known, is short of space or inodes.
    pub(crate) fn disk_is_short(&self, node: Option<Disk>, images: Option<Disk>) -> bool {
        let short = |disk: Disk, bytes: Threshold, inodes: Threshold| bytes.is_crossed(disk.bytes) || inodes.is_crossed(disk.inodes);
        node.is_some_and(|disk| short(disk, self.node_bytes, self.node_inodes))
            || images.is_some_and(|disk| short(disk, self.image_bytes, self.image_inodes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn disk(free: i64, total: i64) -> Disk {
        Disk { bytes: Space { free, total }, inodes: Space { free: 100, total: 100 } }
    }

    #[test]
    fn thresholds_are_amounts_or_shares() {
        let all = EvictionThresholds::parse("memory.available<1Gi, nodefs.available<7.5%,imagefs.inodesFree<10").unwrap();
        assert!(all.memory_is_short(Space { free: (1 << 30) - 1, total: 4 << 30 }));
        assert!(!all.memory_is_short(Space { free: 1 << 30, total: 4 << 30 }));
        assert!(all.disk_is_short(Some(disk(74, 1000)), None));
        assert!(!all.disk_is_short(Some(disk(75, 1000)), None));
        let no_inodes = Disk { bytes: Space { free: 500, total: 1000 }, inodes: Space { free: 9, total: 1000 } };
        assert!(all.disk_is_short(None, Some(no_inodes)));
        assert!(!all.disk_is_short(Some(no_inodes), None), "nodefs.inodesFree has no threshold here");
    }

    #[test]
    fn what_is_not_named_has_no_threshold() {
        let all = EvictionThresholds::parse("pid.available<10%").unwrap();
        assert!(!all.memory_is_short(Space { free: 0, total: 1 << 30 }));
        assert!(!all.disk_is_short(Some(disk(0, 1000)), Some(disk(0, 1000))));
        assert!(all.pids_are_short(Space { free: 9, total: 100 }));
    }

    #[test]
    fn a_file_system_that_counts_no_inodes_is_not_short_of_them() {
        let btrfs = Disk { bytes: Space { free: 50, total: 100 }, inodes: Space { free: 0, total: 0 } };
        assert!(!EvictionThresholds::default().disk_is_short(Some(btrfs), Some(btrfs)));
    }

    #[test]
    fn the_default_leaves_small_disks_usable() {
        let all = EvictionThresholds::default();
        assert!(!all.disk_is_short(Some(disk(6, 100)), Some(disk(6, 100))));
        assert!(all.disk_is_short(Some(disk(4, 100)), None));
        assert!(all.disk_is_short(Some(disk(6, 100)), Some(disk(4, 100))));
    }

    #[test]
    fn pods_are_evicted_for_memory_before_disks() {
        let all = EvictionThresholds::default();
        let memory = |free| Space { free, total: 4 << 30 };
        let (short, fine) = (Some(disk(4, 100)), Some(disk(50, 100)));
        let signal =
            |memory, node, images| all.crossed(memory, node, images).map(|crossed| (crossed.signal, crossed.threshold, crossed.available));
        assert_eq!(signal(memory(1 << 20), short, short), Some(("memory.available", 100 << 20, 1 << 20)));
        assert_eq!(signal(memory(1 << 30), short, short), Some(("nodefs.available", 5, 4)));
        assert_eq!(signal(memory(1 << 30), fine, short), Some(("imagefs.available", 5, 4)));
        assert_eq!(signal(memory(1 << 30), fine, None), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("memory.available", "memory.available: expected SIGNAL<VALUE,..."),
            ("memory.free<1Gi", "memory.free: no such signal; there are imagefs.available, "),
            ("nodefs.available<lots", "nodefs.available<lots: expected a quantity such as 100Mi, or a percentage such as 5%"),
            ("nodefs.available<101%", "nodefs.available<101%: expected between 0% and 100%"),
            ("nodefs.available<NaN%", "nodefs.available<NaN%: expected between 0% and 100%"),
            ("memory.available<-1", "memory.available<-1: expected no negative quantity"),
            ("pid.available<5,pid.available<6", "pid.available is given twice"),
        ] {
            let refused = EvictionThresholds::parse(text).unwrap_err();
            assert!(refused.starts_with(why), "{refused}");
        }
    }
}
