//! Bugs planted on purpose, for `tests/chaos` to find: a simulation that finds nothing proves nothing.
//!
//! Each stands in the production path at the place where etcd, openraft or their like once had it, behind a question to
//! [`on`]. Without the feature `mutants`, which no release is built with, the answer is a constant no.

/// Whether the environment asks for this bug (`TRIREME_MUTANT`).
#[cfg(feature = "mutants")]
pub(crate) fn on(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("TRIREME_MUTANT").ok()).as_deref() == Some(name)
}

/// No.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn on(_name: &str) -> bool {
    false
}
