//! For how long a server has had no contact to its cluster, as far as health checks asked.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a server may be without its cluster before balancers should pass it over. An election is no reason to end
/// every watch.
const CONTACT_GRACE: Duration = Duration::from_secs(3);

/// Since when a server has no contact to its cluster, as far as anybody asked.
#[derive(Debug, Default)]
pub struct ContactLost(Mutex<Option<Instant>>);

impl ContactLost {
    /// Notes whether there is contact; true when there was none for longer than the grace.
    pub fn note(&self, contact: bool) -> bool {
        let mut since = self.0.lock();
        if contact {
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() > CONTACT_GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_election_is_waited_for_and_a_lost_quorum_is_not() {
        let lost = ContactLost::default();
        assert!(!lost.note(true) && !lost.note(false));
        tokio::time::advance(CONTACT_GRACE).await;
        assert!(!lost.note(false), "within the grace");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(lost.note(false), "beyond it");
        assert!(!lost.note(true), "back");
        assert!(!lost.note(false), "the next loss begins anew");
    }
}
