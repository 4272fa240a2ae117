//! How long pods stay on a node that is not ready or unreachable, where they do not say it themselves.

/// `--default-not-ready-toleration-seconds` and `--default-unreachable-toleration-seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TolerationSeconds {
    /// On a node that is not ready.
    pub not_ready: i64,
    /// On a node that is unreachable.
    pub unreachable: i64,
}

impl Default for TolerationSeconds {
    fn default() -> TolerationSeconds {
        TolerationSeconds { not_ready: 300, unreachable: 300 }
    }
}
