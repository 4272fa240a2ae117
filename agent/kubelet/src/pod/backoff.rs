//! The delays before what failed is tried again: a container (CrashLoopBackOff), an image's pull, a pod's volumes.
//!
//! Of containers and images: 10 s, doubled up to 5 min, forgotten when nothing failed for 10 min. The first repetition is immediate. Answers to
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>.

use jiff::{SignedDuration, Timestamp};

const INITIAL: SignedDuration = SignedDuration::from_secs(10);
const MAX: SignedDuration = SignedDuration::from_secs(300);
const FORGET_AFTER: SignedDuration = SignedDuration::from_secs(600);
/// The object that a volume is made of often appears a moment later, as a new namespace's `kube-root-ca.crt` does.
const FIRST_VOLUME_RETRY: SignedDuration = SignedDuration::from_millis(500);
const LAST_VOLUME_RETRY: SignedDuration = SignedDuration::from_secs(122);

/// How long after so many failures before this one a pod's volumes are tried again: upstream's 500 ms, doubled up to 2 min 2 s.
pub(crate) fn volume_retry(failures: u32) -> SignedDuration {
    (FIRST_VOLUME_RETRY * (1 << failures.min(8))).min(LAST_VOLUME_RETRY)
}

/// The back-off of one container or image. Default: nothing failed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    current: Option<(SignedDuration, Timestamp)>,
}

impl Backoff {
    /// If a retry is not allowed yet: the delay in force, and the moment it ends.
    pub(crate) fn waiting(&self, failed_at: Timestamp, now: Timestamp) -> Option<(SignedDuration, Timestamp)> {
        let (delay, updated) = self.current?;
        let until = failed_at + delay;
        (failed_at.duration_since(updated) <= FORGET_AFTER && now < until).then_some((delay, until))
    }

    /// Notes that a retry is made now, after a failure at `failed_at`.
    pub(crate) fn retried(&mut self, failed_at: Timestamp, now: Timestamp) {
        let delay = match self.current {
            Some((delay, updated)) if failed_at.duration_since(updated) <= FORGET_AFTER => (delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.current = Some((delay, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_tried_again_soon_then_less_and_less_often() {
        let delays: Vec<i128> = (0..11).map(|failures| volume_retry(failures).as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 122_000, 122_000, 122_000]);
    }

    #[test]
    fn first_retry_is_immediate_then_doubles_to_five_minutes_and_forgets() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut delays = Vec::new();
        for _ in 0..8 {
            match backoff.waiting(now, now) {
                None => delays.push(0),
                Some((delay, until)) => {
                    delays.push(delay.as_secs());
                    assert_eq!(backoff.waiting(now, until), None);
                }
            }
            let failed_at = now;
            now += SignedDuration::from_secs(delays[delays.len() - 1]);
            backoff.retried(failed_at, now);
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        let after_a_quiet_while = now + SignedDuration::from_secs(601);
        assert_eq!(backoff.waiting(after_a_quiet_while, after_a_quiet_while), None);
    }
}
