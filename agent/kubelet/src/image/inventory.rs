//! Which images there are, since when, and when each was used last. Pure.
//!
//! Follows <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images>: what was used longest ago goes first; what is
//! in use, pinned or young stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

/// When images are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePolicy {
    /// Collect when more than so many percent of the images' disk are used; 100: never.
    pub high_percent: u8,
    /// Collect until no more than so many percent are used.
    pub low_percent: u8,
    /// An image is not collected before it has been there for so long.
    pub min_age: Duration,
    /// An image that was not used for so long is collected whatever the disk says. None: it may stay.
    pub max_age: Option<Duration>,
}

impl Default for ImagePolicy {
    /// As upstream.
    fn default() -> ImagePolicy {
        ImagePolicy { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120), max_age: None }
    }
}

/// An image as it is found now.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) bytes: u64,
    pub(super) in_use: bool,
    /// Must stay, used or not.
    pub(super) kept: bool,
}

#[derive(Debug, Clone)]
struct Record {
    bytes: u64,
    /// None: it was there when the kubelet started, or has not been used since.
    first_seen: Option<Timestamp>,
    last_used: Option<Timestamp>,
    /// In use or kept, when last looked at.
    stays: bool,
}

/// What is known of the images.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    images: BTreeMap<String, Record>,
    /// The first look.
    since: Option<Timestamp>,
}

/// Why an image goes, as the metric names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Age,
    Space,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Reason::Age => "age",
            Reason::Space => "space",
        }
    }
}

impl Inventory {
    /// Takes in what there is.
    pub(super) fn look(&mut self, found: Vec<Found>, now: Timestamp) {
        let first_seen = self.since.map(|_| now);
        self.since.get_or_insert(now);
        let ids: BTreeSet<&str> = found.iter().map(|image| image.id.as_str()).collect();
        self.images.retain(|id, _| ids.contains(id.as_str()));
        for image in found {
            let new = Record { bytes: 0, first_seen, last_used: None, stays: false };
            let record = self.images.entry(image.id).or_insert(new);
            record.bytes = image.bytes;
            record.stays = image.in_use || image.kept;
            if image.in_use {
                record.last_used = Some(now);
            }
        }
    }

    /// Images that may go, with their sizes; the one that was used longest ago first.
    pub(super) fn unused(&self, min_age: Duration, now: Timestamp) -> Vec<(String, u64)> {
        let is_old = |record: &Record| record.first_seen.is_none_or(|at| now.duration_since(at) >= signed(min_age));
        let mut may_go: Vec<_> = self.images.iter().filter(|(_, record)| !record.stays && is_old(record)).collect();
        may_go.sort_by_key(|(_, record)| (record.last_used, record.first_seen));
        may_go.into_iter().map(|(id, record)| (id.clone(), record.bytes)).collect()
    }

    /// Of those, the ones that were not used for so long. What was there at the start counts from the first look.
    pub(super) fn outdated(&self, policy: &ImagePolicy, now: Timestamp) -> Vec<(String, u64)> {
        let Some(max_age) = policy.max_age else { return Vec::new() };
        let is_outdated = |id: &str| {
            let record = self.images.get(id);
            let last = record.and_then(|record| record.last_used.or(record.first_seen)).or(self.since).unwrap_or(now);
            now.duration_since(last) > signed(max_age)
        };
        self.unused(policy.min_age, now).into_iter().filter(|(id, _)| is_outdated(id)).collect()
    }

    /// It was removed.
    pub(super) fn forget(&mut self, id: &str) {
        self.images.remove(id);
    }
}

/// How many bytes have to go, if the disk is fuller than the policy wants.
pub(super) fn excess(policy: &ImagePolicy, free: i64, total: i64) -> Option<u64> {
    if total <= 0 || policy.high_percent >= 100 {
        return None;
    }
    let (free, total) = (i128::from(free.clamp(0, total)), i128::from(total));
    let used_percent = 100 - free * 100 / total;
    let wanted = total * i128::from(100 - policy.low_percent.min(100)) / 100;
    (used_percent >= i128::from(policy.high_percent)).then(|| u64::try_from(wanted - free).unwrap_or_default())
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn found(id: &str, in_use: bool, kept: bool) -> Found {
        Found { id: id.into(), bytes: 10, in_use, kept }
    }

    fn ids(images: &[(String, u64)]) -> Vec<&str> {
        images.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_used_kept_or_young_stays() {
        let mut inventory = Inventory::default();
        inventory.look(vec![found("old", false, false), found("was-used", true, false), found("imported", false, true)], at(0));
        let now = vec![
            found("old", false, false),
            found("was-used", false, false),
            found("imported", false, true),
            found("running", true, false),
            found("young", false, false),
        ];
        inventory.look(now, at(1000));
        let min_age = ImagePolicy::default().min_age;
        assert_eq!(ids(&inventory.unused(min_age, at(1000))), ["old", "was-used"]);
        assert_eq!(ids(&inventory.unused(min_age, at(1119))), ["old", "was-used"]);
        assert_eq!(ids(&inventory.unused(min_age, at(1120))), ["old", "young", "was-used"]);
        inventory.forget("old");
        inventory.look(vec![found("young", false, false)], at(1200));
        assert_eq!(ids(&inventory.unused(min_age, at(1200))), ["young"], "what is gone is forgotten");
    }

    #[test]
    fn an_image_may_be_too_old_to_stay() {
        let mut inventory = Inventory::default();
        inventory.look(vec![found("start", false, false), found("used", true, false)], at(0));
        inventory.look(vec![found("start", false, false), found("used", false, false), found("new", false, false)], at(500));
        let none = ImagePolicy::default();
        assert!(inventory.outdated(&none, at(1_000_000)).is_empty());
        let policy = ImagePolicy { max_age: Some(Duration::from_secs(1000)), ..none };
        assert_eq!(ids(&inventory.outdated(&policy, at(1001))), ["start", "used"]);
        assert_eq!(ids(&inventory.outdated(&policy, at(1501))), ["start", "new", "used"]);
    }

    #[test]
    fn a_disk_above_the_high_mark_is_freed_down_to_the_low_one() {
        let policy = ImagePolicy::default();
        assert_eq!(excess(&policy, 160, 1000), None);
        assert_eq!(excess(&policy, 150, 1000), Some(50));
        assert_eq!(excess(&policy, 0, 1000), Some(200));
        assert_eq!(excess(&policy, 0, 0), None);
        assert_eq!(excess(&policy, i64::MAX, i64::MAX), None);
        assert_eq!(excess(&policy, -5, 100), Some(20));
        assert_eq!(excess(&ImagePolicy { high_percent: 100, ..policy }, 0, 1000), None, "switched off, as upstream");
        assert_eq!(excess(&ImagePolicy { high_percent: 0, low_percent: 0, ..policy }, 1000, 1000), Some(0));
    }
}
