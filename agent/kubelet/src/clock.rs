//! The kubelet's wall clock, and the one way to wait for the file system.
//!
//! Statuses, tokens and leases are about wall time; delays inside the kubelet use tokio's clock. Both come in through here, so that a
//! test decides what time it is.

use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Where the time comes from.
#[derive(Clone, Debug)]
pub(crate) enum Clock {
    /// The machine's clock.
    Wall,
    /// A start, and as much later as tokio's clock says: tests pause it.
    #[cfg(test)]
    Simulated {
        /// The time at `since`.
        start: Timestamp,
        /// When the clock was made.
        since: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock that moves with tokio's.
    #[cfg(test)]
    pub(crate) fn simulated(start: Timestamp) -> Clock {
        Clock::Simulated { start, since: tokio::time::Instant::now() }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Clock::Wall => Timestamp::now(),
            #[cfg(test)]
            Clock::Simulated { start, since } => *start + since.elapsed(),
        }
    }

    /// The time now in whole seconds, as the API keeps it: a comparison with what comes back must not see a difference.
    pub(crate) fn now_secs(&self) -> Timestamp {
        let now = self.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }
}

/// Does file system work in place. The other tasks of this thread go on elsewhere, where the executor has other threads.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
