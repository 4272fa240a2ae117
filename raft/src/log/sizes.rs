//! Sizes of the parts of the log in bytes, from marks that are set every mebibyte, each with the time at which it was set.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Bytes between two marks: the precision of every answer.
const STEP_BYTES: u64 = 1 << 20;

/// A point of the log.
#[derive(Clone, Copy, Debug)]
struct Mark {
    index: u64,
    /// All bytes up to and with that entry, since the log was opened.
    total: u64,
    at: Instant,
}

/// Sizes of the log's parts.
#[derive(Default, Debug)]
pub(crate) struct LogSizes {
    marks: VecDeque<Mark>,
    total: u64,
}

/// How much of the log stays behind a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogKept {
    /// At least so many bytes, as far as there are.
    pub bytes: u64,
    /// And all that is younger than this.
    pub young: Duration,
    /// But not more than so many bytes.
    pub bytes_max: u64,
}

// === impl LogSizes ===

impl LogSizes {
    pub(super) fn push(&mut self, index: u64, bytes: usize, now: Instant) {
        self.total += bytes as u64;
        if self.marks.back().is_none_or(|last| self.total >= last.total + STEP_BYTES) {
            self.marks.push_back(Mark { index, total: self.total, at: now });
        }
    }

    pub(super) fn truncate_from(&mut self, from: u64) {
        while self.marks.pop_back_if(|mark| mark.index >= from).is_some() {}
        self.total = self.marks.back().map_or(self.total, |last| last.total);
    }

    pub(super) fn purge_to(&mut self, index: u64) {
        while self.marks.pop_front_if(|mark| mark.index <= index).is_some() {}
    }

    /// How many bytes lie behind entry `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let before = self.marks.partition_point(|mark| mark.index <= index);
        let total =
            before.checked_sub(1).and_then(|last| self.marks.get(last)).or(self.marks.front()).map_or(self.total, |mark| mark.total);
        self.total - total
    }

    /// The last entry that need not be kept.
    pub(crate) fn dispensable(&self, kept: LogKept, now: Instant) -> Option<u64> {
        let goes = |mark: &Mark| {
            let after = self.total - mark.total;
            after >= kept.bytes && (after >= kept.bytes_max || now.saturating_duration_since(mark.at) >= kept.young)
        };
        self.marks.iter().take_while(|mark| goes(mark)).last().map(|mark| mark.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_young_or_little_stays_and_what_is_too_much_goes() {
        let start = Instant::now();
        let kept = LogKept { bytes: 3 * MIB, young: Duration::from_secs(60), bytes_max: 8 * MIB };
        let mut sizes = LogSizes::default();
        assert_eq!((sizes.bytes_after(0), sizes.dispensable(kept, start)), (0, None));
        // A mebibyte a second.
        for second in 0..10 {
            sizes.push(second, 1 << 20, start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!(sizes.bytes_after(4), 5 * MIB);
        assert_eq!(sizes.bytes_after(9), 0);
        assert_eq!(sizes.dispensable(kept, now), Some(1), "the rest is young, and no more than eight");
        assert_eq!(sizes.dispensable(kept, start + Duration::from_secs(64)), Some(4), "the rest is young still");
        assert_eq!(sizes.dispensable(kept, start + Duration::from_secs(600)), Some(6), "three stay for ever");
        sizes.purge_to(6);
        assert_eq!((sizes.bytes_after(6), sizes.dispensable(kept, start + Duration::from_secs(600))), (2 * MIB, None));
        sizes.truncate_from(9);
        assert_eq!(sizes.bytes_after(7), MIB);
        sizes.push(9, 1 << 20, now);
        assert_eq!(sizes.bytes_after(7), 2 * MIB);
    }
}
