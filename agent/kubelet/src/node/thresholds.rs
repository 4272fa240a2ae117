//! When a node counts as short of memory, disk or process ids: the hard and soft eviction thresholds.
//!
//! Follows <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#eviction-thresholds>. A crossed threshold
//! sets the node's condition, and the condition its taint; `eviction.rs` ends pods.

use std::time::Duration;

use tokio::time::Instant;
use trireme_api::{quantity::Quantity, time::go_duration};

use super::signal::{Readings, Resource, Signal};
use crate::machine::Space;

const SIGNALS: usize = Signal::ALL.len();
/// A pod that is evicted for a hard threshold gets so long to end, as upstream.
const HARD_GRACE_SECS: i64 = 1;

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

/// A threshold that is crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Crossed {
    pub(crate) signal: Signal,
    /// In bytes, or a count.
    pub(crate) threshold: i64,
    pub(crate) available: i64,
    /// The most seconds that an evicted pod gets to end.
    pub(crate) grace_secs: i64,
}

/// A threshold for each signal, in the order of [`Signal::ALL`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvictionThresholds([Threshold; SIGNALS]);

impl Default for EvictionThresholds {
    /// Memory and inodes as upstream. Disks as k3s: upstream's 10 % and 15 % are much on the large, well-filled disks of small clusters.
    fn default() -> EvictionThresholds {
        let disk = Threshold::Percent(5.0);
        EvictionThresholds([Threshold::Amount(100 << 20), disk, disk, disk, disk, Threshold::Percent(10.0)])
    }
}

impl EvictionThresholds {
    /// Reads `memory.available<100Mi,nodefs.available<5%`. As with upstream's `--eviction-hard`, a signal that is not named has no
    /// threshold.
    ///
    /// # Errors
    /// One line that says which part is wrong and what is expected.
    pub fn parse(text: &str) -> Result<EvictionThresholds, String> {
        let named = by_signal(text, '<', "SIGNAL<VALUE", Threshold::parse)?;
        Ok(EvictionThresholds(named.map(|threshold| threshold.unwrap_or(Threshold::NONE))))
    }

    /// The thresholds that are crossed, in the order in which pods are evicted for them.
    fn crossed<'a>(&'a self, readings: &'a Readings, grace_secs: i64) -> impl Iterator<Item = Crossed> + 'a {
        Signal::ALL.into_iter().zip(self.0).filter_map(move |(signal, threshold)| {
            let space = readings.of(signal).filter(|space| threshold.is_crossed(*space))?;
            Some(Crossed { signal, threshold: threshold.of(space), available: space.free, grace_secs })
        })
    }
}

/// Thresholds that may be crossed for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftThresholds {
    thresholds: EvictionThresholds,
    /// For how long, in the order of [`Signal::ALL`].
    patience: [Duration; SIGNALS],
    /// The most seconds that a pod gets that is evicted for one of them.
    pod_grace_secs: i64,
}

impl Default for SoftThresholds {
    /// None.
    fn default() -> SoftThresholds {
        SoftThresholds {
            thresholds: EvictionThresholds([Threshold::NONE; SIGNALS]),
            patience: [Duration::ZERO; SIGNALS],
            pod_grace_secs: 0,
        }
    }
}

impl SoftThresholds {
    /// Reads upstream's `--eviction-soft`, `--eviction-soft-grace-period` (`memory.available=1m30s`) and `--eviction-max-pod-grace-period`.
    ///
    /// # Errors
    /// One line that says which part is wrong and what is expected.
    pub fn parse(thresholds: &str, patience: &str, pod_grace_secs: u32) -> Result<SoftThresholds, String> {
        let thresholds = EvictionThresholds::parse(thresholds)?;
        let expected = || "expected a duration such as 1m30s".to_owned();
        let patience = by_signal(patience, '=', "SIGNAL=DURATION", |text| go_duration(text).ok_or_else(expected))?;
        let without =
            thresholds.0.iter().zip(&patience).position(|(threshold, patience)| *threshold != Threshold::NONE && patience.is_none());
        if let Some(place) = without {
            return Err(format!("{}: expected a grace period for this soft threshold", Signal::ALL[place].name()));
        }
        let patience = patience.map(Option::unwrap_or_default);
        Ok(SoftThresholds { thresholds, patience, pod_grace_secs: pod_grace_secs.into() })
    }
}

/// A value for each signal that the text names.
fn by_signal<T: Copy>(
    text: &str,
    between: char,
    form: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<[Option<T>; SIGNALS], String> {
    let mut all = [None; SIGNALS];
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once(between).ok_or_else(|| format!("{part}: expected {form},..."))?;
        let place = Signal::ALL.iter().position(|signal| signal.name() == name).ok_or_else(|| {
            let mut names = Signal::ALL.map(Signal::name);
            names.sort_unstable();
            format!("{name}: no such signal; there are {}", names.join(", "))
        })?;
        if all[place].is_some() {
            return Err(format!("{name} is given twice"));
        }
        all[place] = Some(parse(value).map_err(|why| format!("{part}: {why}"))?);
    }
    Ok(all)
}

/// Both kinds of thresholds, and since when soft ones are crossed.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    since: [Option<Instant>; SIGNALS],
}

impl Watched {
    /// The first threshold for which pods are evicted: a hard one, or a soft one that was crossed for its grace period.
    pub(crate) fn first(&mut self, hard: &EvictionThresholds, soft: &SoftThresholds, readings: &Readings, now: Instant) -> Option<Crossed> {
        let mut overdue = None;
        let crossed: Vec<Crossed> = soft.thresholds.crossed(readings, soft.pod_grace_secs).collect();
        for (place, signal) in Signal::ALL.into_iter().enumerate() {
            let Some(crossed) = crossed.iter().find(|crossed| crossed.signal == signal) else {
                self.since[place] = None;
                continue;
            };
            let since = *self.since[place].get_or_insert(now);
            if now.duration_since(since) >= soft.patience[place] {
                overdue = overdue.or(Some(*crossed));
            }
        }
        hard.crossed(readings, HARD_GRACE_SECS).next().or(overdue)
    }
}

/// Whether the node is short of this: a hard or a soft threshold is crossed.
pub(crate) fn is_short(hard: &EvictionThresholds, soft: &SoftThresholds, readings: &Readings, of: impl Fn(Resource) -> bool) -> bool {
    let crossed = hard.crossed(readings, 0).chain(soft.thresholds.crossed(readings, 0));
    crossed.into_iter().any(|crossed| of(crossed.signal.resource()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::Disk;

    fn disk(free: i64, total: i64) -> Disk {
        Disk { bytes: Space { free, total }, inodes: Space { free: 100, total: 100 } }
    }

    fn readings(memory_free: i64, node: Option<Disk>, images: Option<Disk>, pids_free: i64) -> Readings {
        Readings { memory: Space { free: memory_free, total: 4 << 30 }, node, images, pids: Space { free: pids_free, total: 100 } }
    }

    fn names(all: &EvictionThresholds, readings: Readings) -> Vec<&'static str> {
        all.crossed(&readings, 0).map(|crossed| crossed.signal.name()).collect()
    }

    #[test]
    fn thresholds_are_amounts_or_shares() {
        let all = EvictionThresholds::parse("memory.available<1Gi, nodefs.available<7.5%,imagefs.inodesFree<10").unwrap();
        let fine = readings(1 << 30, Some(disk(75, 1000)), None, 0);
        assert!(names(&all, fine).is_empty());
        assert_eq!(names(&all, Readings { memory: Space { free: (1 << 30) - 1, total: 4 << 30 }, ..fine }), ["memory.available"]);
        assert_eq!(names(&all, Readings { node: Some(disk(74, 1000)), ..fine }), ["nodefs.available"]);
        let no_inodes = Disk { bytes: Space { free: 500, total: 1000 }, inodes: Space { free: 9, total: 1000 } };
        assert_eq!(names(&all, Readings { images: Some(no_inodes), ..fine }), ["imagefs.inodesFree"]);
        assert!(names(&all, Readings { node: Some(no_inodes), ..fine }).is_empty(), "nodefs.inodesFree has no threshold here");
    }

    #[test]
    fn what_is_not_named_has_no_threshold() {
        let all = EvictionThresholds::parse("pid.available<10%").unwrap();
        assert_eq!(names(&all, readings(0, Some(disk(0, 1000)), Some(disk(0, 1000)), 9)), ["pid.available"]);
        assert!(names(&all, readings(0, None, None, 10)).is_empty());
    }

    #[test]
    fn a_file_system_that_counts_no_inodes_is_not_short_of_them() {
        let btrfs = Disk { bytes: Space { free: 50, total: 100 }, inodes: Space { free: 0, total: 0 } };
        assert!(names(&EvictionThresholds::default(), readings(1 << 30, Some(btrfs), Some(btrfs), 50)).is_empty());
    }

    #[test]
    fn the_default_leaves_small_disks_usable() {
        let all = EvictionThresholds::default();
        assert!(names(&all, readings(1 << 30, Some(disk(6, 100)), Some(disk(6, 100)), 50)).is_empty());
        assert_eq!(names(&all, readings(1 << 30, Some(disk(4, 100)), None, 50)), ["nodefs.available"]);
        assert_eq!(names(&all, readings(1 << 30, Some(disk(6, 100)), Some(disk(4, 100)), 50)), ["imagefs.available"]);
    }

    #[test]
    fn pods_are_evicted_for_memory_before_disks_before_process_ids() {
        let all = EvictionThresholds::default();
        let (short, fine) = (Some(disk(4, 100)), Some(disk(50, 100)));
        let first = |readings: Readings| {
            let crossed = Watched::default().first(&all, &SoftThresholds::default(), &readings, Instant::now());
            crossed.map(|crossed| (crossed.signal.name(), crossed.threshold, crossed.available))
        };
        assert_eq!(first(readings(1 << 20, short, short, 1)), Some(("memory.available", 100 << 20, 1 << 20)));
        assert_eq!(first(readings(1 << 30, short, short, 1)), Some(("nodefs.available", 5, 4)));
        assert_eq!(first(readings(1 << 30, fine, short, 1)), Some(("imagefs.available", 5, 4)));
        assert_eq!(first(readings(1 << 30, fine, None, 1)), Some(("pid.available", 10, 1)));
        assert_eq!(first(readings(1 << 30, fine, None, 50)), None);
    }

    #[test]
    fn a_soft_threshold_has_to_be_crossed_for_its_grace_period_in_one_go() {
        let soft = SoftThresholds::parse("memory.available<1Gi,pid.available<20%", "pid.available=10s,memory.available=1m30s", 40).unwrap();
        let hard = EvictionThresholds::default();
        let (mut watched, began) = (Watched::default(), Instant::now());
        let mut at = |second: u64, memory: i64, pids: i64| {
            let readings = readings(memory, None, None, pids);
            let crossed = watched.first(&hard, &soft, &readings, began + Duration::from_secs(second));
            crossed.map(|crossed| (crossed.signal.name(), crossed.grace_secs))
        };
        assert_eq!(at(0, 1 << 29, 50), None);
        assert_eq!(at(80, 2 << 30, 50), None, "it is over");
        assert_eq!(at(90, 1 << 29, 50), None, "and begins again");
        assert_eq!(at(170, 1 << 29, 15), None);
        assert_eq!(at(180, 1 << 29, 15), Some(("memory.available", 40)));
        assert_eq!(at(181, 2 << 30, 15), Some(("pid.available", 40)));
        assert_eq!(at(182, 1 << 20, 15), Some(("memory.available", HARD_GRACE_SECS)), "the hard one");
        let short = |memory: i64| is_short(&hard, &soft, &readings(memory, None, None, 50), |resource| resource == Resource::Memory);
        assert!(short(1 << 29) && !short(1 << 30), "the condition does not wait");
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
        for (soft, grace, why) in [
            ("pid.available<5", "", "pid.available: expected a grace period for this soft threshold"),
            ("pid.available<5", "pid.available=5", "pid.available=5: expected a duration such as 1m30s"),
            ("", "pid=5s", "pid: no such signal; there are "),
        ] {
            let refused = SoftThresholds::parse(soft, grace, 0).unwrap_err();
            assert!(refused.starts_with(why), "{refused}");
        }
    }
}
