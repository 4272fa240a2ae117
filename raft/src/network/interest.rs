//! Whether a follower waits for what the leader commits.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// How long after a request a member counts as waiting. It is likely to ask again.
const RECENT: Duration = Duration::from_millis(200);

/// When a member asked this one for something last whose answer it can use only when it has applied it: a read index, or a
/// forwarded proposal. While that is recent, it learns commit indexes at once.
#[derive(Default)]
pub(crate) struct Interest(Mutex<Option<Instant>>);

impl Interest {
    pub(crate) fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    pub(crate) fn is_recent(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < RECENT)
    }
}
