//! The end of a pod that this node decides.

/// An end that was decided, not reached: admission refused the pod, its deadline passed, it was evicted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) reason: String,
    pub(crate) message: String,
}
