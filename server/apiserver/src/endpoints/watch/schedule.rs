//! When a watch announces its progress, and when it ends.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_raft::StoreStatus;

use crate::storage::cache::Subscription;

/// A watch without `timeoutSeconds` ends after this, and up to as much again.
const DEFAULT_TIMEOUT_SECS: u64 = 1800;
/// No watch lasts longer, whatever `timeoutSeconds` says.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 86_400);
/// How often progress is announced to watchers that asked for bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(45);
/// The first bookmark is sent soon: a server that has just become the leader reopens its watches to learn that its
/// caches are complete, and must not have to list for that.
const FIRST_BOOKMARK: Duration = Duration::from_millis(100);
/// How often a watcher looks whether the server still has contact to its cluster.
const CONTACT_EVERY: Duration = Duration::from_secs(10);
/// How long a watch goes on without that contact.
const CONTACT_PATIENCE: Duration = Duration::from_secs(30);

/// What a watcher does when nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Look again.
    Look,
    /// Announce the progress.
    Bookmark,
    /// End.
    End,
}

/// The times of one watch.
pub struct Schedule {
    deadline: Instant,
    bookmarks: bool,
    next_bookmark: Instant,
    stopping: CancellationToken,
    retired: CancellationToken,
    store: watch::Receiver<StoreStatus>,
    lost_contact: Option<Instant>,
}

impl Schedule {
    /// A watch that begins now and lasts `timeout_secs`. It ends with the server (`stopping`), with its resource (`retired`: no longer
    /// served, or served with another definition), or some time after the server has lost its cluster.
    pub fn new(
        timeout_secs: Option<u64>,
        bookmarks: bool,
        stopping: CancellationToken,
        retired: CancellationToken,
        store: watch::Receiver<StoreStatus>,
    ) -> Schedule {
        let now = Instant::now();
        let later = |after: Duration| now.checked_add(after).unwrap_or(now);
        Schedule {
            deadline: later(timeout(timeout_secs)),
            bookmarks,
            next_bookmark: later(FIRST_BOOKMARK),
            stopping,
            retired,
            store,
            lost_contact: None,
        }
    }

    /// When the watch ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline || self.stopping.is_cancelled() || self.retired.is_cancelled()
    }

    /// Waits for a change or the next thing to do.
    pub async fn wait(&mut self, changed: &mut Subscription) -> Wake {
        let look = Instant::now().checked_add(CONTACT_EVERY).unwrap_or(self.deadline);
        let wake = self.deadline.min(look).min(if self.bookmarks { self.next_bookmark } else { self.deadline });
        tokio::select! {
            more = changed.changed() => return if more { Wake::Look } else { Wake::End },
            () = self.stopping.cancelled() => return Wake::End,
            () = self.retired.cancelled() => return Wake::End,
            () = tokio::time::sleep_until(wake) => {}
        }
        let now = Instant::now();
        if !self.store.borrow().has_quorum_contact {
            if self.bookmarks && now >= self.next_bookmark {
                // Not announced without contact, and not looked for all the time either.
                self.next_bookmark = now.checked_add(FIRST_BOOKMARK).unwrap_or(self.deadline);
            }
            let lost = self.lost_contact.get_or_insert(now);
            return if now.duration_since(*lost) > CONTACT_PATIENCE { Wake::End } else { Wake::Look };
        }
        self.lost_contact = None;
        if self.bookmarks && now >= self.next_bookmark {
            self.next_bookmark = now.checked_add(BOOKMARK_EVERY).unwrap_or(self.deadline);
            return Wake::Bookmark;
        }
        Wake::Look
    }
}

fn timeout(seconds: Option<u64>) -> Duration {
    // Spread, so that clients of a restarted server do not come back all at once.
    let spread = || DEFAULT_TIMEOUT_SECS.saturating_add(rand::rng().random_range(0..DEFAULT_TIMEOUT_SECS));
    Duration::from_secs(seconds.unwrap_or_else(spread)).min(LONGEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::cache::{Interest, ResourceCache};

    #[tokio::test(start_paused = true)]
    async fn without_contact_a_due_bookmark_keeps_nobody_busy() {
        let status = StoreStatus { has_quorum_contact: false, ..StoreStatus::default() };
        let (store, seen) = watch::channel(status);
        let mut schedule = Schedule::new(Some(3600), true, CancellationToken::new(), CancellationToken::new(), seen);
        let mut changed = ResourceCache::new(1000).subscribe(Interest::Everything);
        let began = Instant::now();
        let mut looks = 0;
        while began.elapsed() < Duration::from_secs(20) {
            assert_eq!(schedule.wait(&mut changed).await, Wake::Look);
            looks += 1;
        }
        assert!((2..=220).contains(&looks), "{looks} looks in 20 s");
        store.send_modify(|status| status.has_quorum_contact = true);
        assert_eq!(schedule.wait(&mut changed).await, Wake::Bookmark);
    }

    #[test]
    fn security_08_every_timeout_has_an_end() {
        assert_eq!(timeout(Some(u64::MAX)), LONGEST_TIMEOUT);
        assert_eq!(timeout(Some(5)), Duration::from_secs(5));
        assert!((1800..3600).contains(&timeout(None).as_secs()));
    }
}
