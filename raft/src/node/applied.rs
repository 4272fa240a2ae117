//! The position of local apply, and the queue of tasks that wait for an index.
//!
//! A watch channel would wake every waiter at every apply: with a thousand proposals in flight, a thousand
//! tasks for each batch. Here a waiter names its index and is woken once, when that index is applied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// A position of local apply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AppliedAt {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

/// The position, as it moves.
pub(crate) struct Applied {
    at: watch::Sender<AppliedAt>,
    /// By index, then by arrival.
    waiting: Mutex<BTreeMap<(u64, u64), oneshot::Sender<()>>>,
    arrivals: AtomicU64,
}

/// Removes a waiter from the queue when its future is dropped.
struct Place<'a> {
    applied: &'a Applied,
    key: (u64, u64),
}

// === impl Applied ===

impl Applied {
    pub(crate) fn new(at: AppliedAt) -> Applied {
        Applied { at: watch::Sender::new(at), waiting: Mutex::default(), arrivals: AtomicU64::new(0) }
    }

    pub(crate) fn at(&self) -> AppliedAt {
        *self.at.borrow()
    }

    /// Notifies of every change of the position.
    pub(crate) fn subscribe(&self) -> watch::Receiver<AppliedAt> {
        self.at.subscribe()
    }

    /// Records that everything up to `at` is applied, and wakes its waiters.
    pub(crate) fn reached(&self, at: AppliedAt) {
        // Invariant: the position is set before the queue is locked, and a waiter reads the position while it holds that lock.
        // A waiter that is not woken here has therefore read the new position.
        self.at.send_replace(at);
        let served = {
            let mut waiting = self.waiting.lock();
            let rest = waiting.split_off(&(at.index + 1, 0));
            std::mem::replace(&mut *waiting, rest)
        };
        for waiter in served.into_values() {
            // A send fails where the waiter was dropped.
            let _ = waiter.send(());
        }
    }

    /// Returns when `index` is applied here.
    pub(crate) async fn wait(&self, index: u64) {
        let place = Place { applied: self, key: (index, self.arrivals.fetch_add(1, Ordering::Relaxed)) };
        let answer = {
            let mut waiting = self.waiting.lock();
            if self.at().index >= index {
                return;
            }
            let (waiter, answer) = oneshot::channel();
            waiting.insert(place.key, waiter);
            answer
        };
        // The sender is only dropped unsent when `self` is, which is borrowed here.
        let _ = answer.await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.applied.waiting.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn wakes_who_is_reached_and_nobody_else() {
        let applied = Applied::new(AppliedAt { term: 1, index: 5 });
        assert!(applied.wait(5).now_or_never().is_some(), "applied already");
        let (mut seven, mut also_seven, mut nine) = (Box::pin(applied.wait(7)), Box::pin(applied.wait(7)), Box::pin(applied.wait(9)));
        assert!(seven.as_mut().now_or_never().is_none());
        assert!(also_seven.as_mut().now_or_never().is_none());
        assert!(nine.as_mut().now_or_never().is_none());
        applied.reached(AppliedAt { term: 1, index: 6 });
        assert!(seven.as_mut().now_or_never().is_none());
        applied.reached(AppliedAt { term: 1, index: 8 });
        assert!(seven.now_or_never().is_some() && also_seven.now_or_never().is_some());
        assert!(nine.as_mut().now_or_never().is_none());
        drop(nine);
        assert!(applied.waiting.lock().is_empty(), "who gave up is forgotten");
    }
}
