//! The end of a pod that this node decides.

/// An evicted pod's containers get so long to end, as upstream.
const EVICTED_GRACE_SECS: i64 = 1;

/// An end that was decided, not reached: admission refused the pod, its deadline passed, it was evicted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Verdict {
    const EVICTED: &str = "Evicted";

    /// The node ends the pod for what it uses.
    pub(crate) fn evicted(message: String) -> Verdict {
        Verdict { reason: Verdict::EVICTED.into(), message }
    }

    pub(crate) fn is_eviction(&self) -> bool {
        self.reason == Verdict::EVICTED
    }

    /// How long the pod may take to end, of the time that it asks for.
    pub(crate) fn grace_secs(&self, asked: i64) -> i64 {
        if self.is_eviction() { asked.min(EVICTED_GRACE_SECS) } else { asked }
    }
}
