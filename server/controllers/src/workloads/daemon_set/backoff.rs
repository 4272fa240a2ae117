//! How often failed pods of a DaemonSet are replaced on a node: where the kubelet refuses a pod, the next one fails too.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// After this time without a failure a node starts anew.
const FORGOTTEN: Duration = Duration::from_secs(2 * 15 * 60);
/// With this number of nodes or more, back-offs that have expired are dropped.
const PRUNE_FROM: usize = 1024;

/// The uid of a set, the generation that it acted on, and a node.
pub(super) type Place = (String, i64, String);

struct Failure {
    wait: Duration,
    since: Instant,
}

/// The failures of all sets.
#[derive(Default)]
pub(super) struct Backoff(Mutex<HashMap<Place, Failure>>);

impl Backoff {
    /// How long a failed pod must stay; `None`, and the next wait is longer, if it may go now.
    pub(super) fn wait(&self, place: Place, now: Instant) -> Option<Duration> {
        let mut failures = self.0.lock();
        let mut wait = FIRST;
        if let Some(known) = failures.get(&place) {
            let passed = now.saturating_duration_since(known.since);
            if passed < known.wait {
                return Some(known.wait - passed);
            }
            if passed <= FORGOTTEN {
                wait = (known.wait * 2).min(LONGEST);
            }
        }
        if failures.len() >= PRUNE_FROM && !failures.contains_key(&place) {
            failures.retain(|_, failure| now.saturating_duration_since(failure.since) <= FORGOTTEN);
        }
        failures.insert(place, Failure { wait, since: now });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_until_it_is_forgotten() {
        let backoff = Backoff::default();
        let place = || ("uid".to_owned(), 1, "n1".to_owned());
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        assert_eq!(backoff.wait(place(), at(0)), None);
        assert_eq!(backoff.wait(place(), at(0)), Some(Duration::from_secs(1)));
        assert_eq!(backoff.wait(place(), at(1)), None);
        assert_eq!(backoff.wait(place(), at(2)), Some(Duration::from_secs(1)));
        assert_eq!(backoff.wait(place(), at(3)), None);
        assert_eq!(backoff.wait(place(), at(3)), Some(Duration::from_secs(4)));
        assert_eq!(backoff.wait(("uid".to_owned(), 1, "n2".to_owned()), at(3)), None, "each node by itself");
        assert_eq!(backoff.wait(place(), at(4000)), None);
        assert_eq!(backoff.wait(place(), at(4000)), Some(FIRST), "forgotten");
    }
}
