//! The end of a pod that this node decides.

/// An end that was decided, not reached: admission refused the pod, its deadline passed, it was evicted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The most seconds that the pod gets to end.
    pub(crate) grace_secs: Option<i64>,
}

impl Verdict {
    const EVICTED: &str = "Evicted";

    /// The pod ends without having been evicted.
    pub(crate) fn new(reason: &str, message: String) -> Verdict {
        Verdict { reason: reason.into(), message, grace_secs: None }
    }

    /// The node ends the pod for what it uses; the pod gets no more than these seconds.
    pub(crate) fn evicted(message: String, grace_secs: i64) -> Verdict {
        Verdict { reason: Verdict::EVICTED.into(), message, grace_secs: Some(grace_secs) }
    }

    pub(crate) fn is_eviction(&self) -> bool {
        self.reason == Verdict::EVICTED
    }

    /// How long the pod may take to end, of the time that it asks for.
    pub(crate) fn grace_secs(&self, asked: i64) -> i64 {
        self.grace_secs.map_or(asked, |most| asked.min(most))
    }
}
