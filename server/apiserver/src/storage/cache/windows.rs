//! One bound for the windows of all resources together.
//!
//! Each resource bounds its own window; with a hundred resources the sum of those bounds is more than a small server has. Revisions
//! order the changes of all resources, so the oldest change of any of them goes first. A watcher that is still behind it reads the
//! store's history.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::catalog::rows::Row;

/// The smallest number of entries at which stale ones are searched for.
const TIDY_MIN: usize = 4096;

/// Which changes the windows of all rows hold, in order. Used by the one task that applies changes.
pub struct Windows {
    limit_bytes: usize,
    bytes: usize,
    /// The rows that changed, with the revisions; what a row has dropped by itself is still listed.
    order: VecDeque<(Arc<Row>, i64)>,
    /// At how many entries the dropped ones are looked for.
    tidy_at: usize,
}

// === impl Windows ===

impl Windows {
    /// No changes yet; at most `limit_bytes` of them are kept.
    pub fn new(limit_bytes: usize) -> Windows {
        Windows { limit_bytes, bytes: 0, order: VecDeque::new(), tidy_at: TIDY_MIN }
    }

    /// Counts what `row` took over at `revision`, by which its window grew or, where it dropped more than it took, shrank, and drops
    /// the oldest changes of all rows that exceed the bound.
    pub fn note(&mut self, row: Arc<Row>, revision: i64, growth: isize) {
        self.bytes = self.bytes.saturating_add_signed(growth);
        self.order.push_back((row, revision));
        while self.bytes > self.limit_bytes {
            let Some((row, revision)) = self.order.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(row.cache.forget_until(revision));
        }
        if self.order.len() >= self.tidy_at {
            self.tidy();
        }
    }

    /// Drops the entries whose changes a row has dropped by itself, because its own bound is the tighter one.
    fn tidy(&mut self) {
        self.order.retain(|(row, revision)| row.cache.window_floor() < *revision);
        self.tidy_at = TIDY_MIN.max(2 * self.order.len());
    }

    /// All rows were loaded anew, so their windows are empty.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.order = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::rows::Rows;
    use crate::storage::cache::object::{Cached, EventType};
    use crate::storage::cache::resource::Changes;

    fn object(name: &str, revision: i64) -> Arc<Cached> {
        let payload = format!(r#"{{"kind":"X","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        Arc::new(Cached::new(payload.as_bytes(), revision, EventType::Added, "", name, Box::new([]), Box::new([])).unwrap())
    }

    fn apply(windows: &mut Windows, row: &Arc<Row>, revision: i64) {
        let growth = row.cache.apply_all(revision, [("a", Some(object("a", revision)))]);
        windows.note(row.clone(), revision, growth);
    }

    #[test]
    fn p9_the_oldest_change_of_any_resource_goes_first() {
        let rows = Rows::builtin(1 << 20);
        let (quiet, busy) = (rows.row("", "secrets").unwrap(), rows.row("", "events").unwrap());
        for row in [&quiet, &busy] {
            row.cache.reset(BTreeMap::new(), 1);
        }
        let one = object("a", 1).size();
        let mut windows = Windows::new(20 * one);
        apply(&mut windows, &quiet, 2);
        for revision in 3..=100 {
            apply(&mut windows, &busy, revision);
        }
        assert!(windows.bytes <= 20 * one, "{} of {}", windows.bytes, 20 * one);
        assert_eq!(windows.bytes, quiet.cache.window_bytes() + busy.cache.window_bytes());
        assert!(windows.order.len() <= 20);
        assert!(matches!(quiet.cache.changes(1, 100, 10), Changes::Behind(2)), "its change was the oldest of all");
        assert!(matches!(quiet.cache.changes(2, 100, 10), Changes::Ready(changes, 100) if changes.is_empty()), "nothing after it was lost");
        assert!(matches!(busy.cache.changes(98, 100, 10), Changes::Ready(changes, 100) if changes.len() == 2));
        windows.clear();
        assert_eq!((windows.bytes, windows.order.len()), (0, 0));
    }

    #[test]
    fn p9_a_row_that_drops_by_itself_leaves_nothing_behind() {
        let rows = Rows::builtin(object("a", 1).size() * 4);
        let (quiet, busy) = (rows.row("", "secrets").unwrap(), rows.row("", "events").unwrap());
        for row in [&quiet, &busy] {
            row.cache.reset(BTreeMap::new(), 1);
        }
        let mut windows = Windows::new(1 << 20);
        apply(&mut windows, &quiet, 2);
        for revision in 3..=3 * TIDY_MIN as i64 {
            apply(&mut windows, &busy, revision);
        }
        assert_eq!(windows.bytes, quiet.cache.window_bytes() + busy.cache.window_bytes());
        assert!(windows.order.len() <= TIDY_MIN, "{}", windows.order.len());
        windows.tidy();
        assert!(windows.order.len() <= 5, "{}", windows.order.len());
    }
}
