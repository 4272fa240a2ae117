//! The one error of this crate. It says what a caller may do next: try again, look again, or give up.

use std::io;

/// How the system words ENOSPC and EDQUOT, whichever library passes it on.
const NO_SPACE: &str = "No space left on device";
const NO_QUOTA: &str = "Disk quota exceeded";

/// Why the store could not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Refused before append by a member that does not lead; nothing happened.
    #[error("this member does not lead the cluster (leader: {})", .leader_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string()))]
    NotLeader {
        /// The leader, where it is known.
        leader_id: Option<u64>,
    },
    /// There is no leader, or it could not be reached in time; nothing was appended.
    #[error("no leader could be reached: {0}")]
    NoLeader(String),
    /// The command may or may not be applied one day. Never retry it blindly.
    #[error("the outcome of proposal {proposal_id:032x} is unknown: {reason}")]
    OutcomeUnknown {
        /// The id that replicated state remembers, if the command was applied.
        proposal_id: u128,
        /// What went wrong.
        reason: String,
    },
    /// The writer's leadership has ended; nothing was written.
    #[error("the writer's leadership has ended")]
    Fenced,
    /// History before `compact_revision` is gone.
    #[error("revision has been compacted (oldest is {compact_revision})")]
    Compacted {
        /// The oldest revision that can still be read is the one after this.
        compact_revision: i64,
    },
    /// A revision was asked for that has not happened here yet.
    #[error("revision {requested} is in the future (current is {current})")]
    FutureRevision {
        /// Asked for.
        requested: i64,
        /// The local revision.
        current: i64,
    },
    /// No such lease.
    #[error("lease {0} not found")]
    LeaseNotFound(i64),
    /// A lease of this id exists already.
    #[error("lease {0} exists already")]
    LeaseExists(i64),
    /// A transaction changes the same key twice.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// A put that keeps value or lease names a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// What the command builds on has changed; nothing was written.
    #[error("{0}")]
    Conflict(String),
    /// A retried command came too late to tell whether it was applied before; this time nothing was written.
    #[error("the proposal came too late")]
    ProposalExpired,
    /// A retried command was applied before, but its result was too large to be remembered.
    #[error("the proposal was applied before, at revision {revision}; its result is forgotten")]
    ResultForgotten {
        /// Revision after it.
        revision: i64,
    },
    /// The write would have had to wait; nothing happened.
    #[error("the store is busy")]
    Busy,
    /// The disk is full; reads and deletes go on.
    #[error("no space left for the store")]
    NoSpace,
    /// The request exceeds a limit.
    #[error("request of {size_bytes} bytes is larger than the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The store is being shut down.
    #[error("the store is shut down")]
    Shutdown,
    /// The state cannot be read here just now: it is being rebuilt. Other members can be asked, or this one a moment
    /// later.
    #[error("the state of this member is not available: {0}")]
    Unavailable(String),
    /// A committed entry cannot be applied by this release; passing over it would fork the state.
    #[error("apply has halted: {0}")]
    Halted(String),
    /// The log or the vote is damaged, missing or shorter than what was acknowledged: this member never votes again
    /// under its id. It must be removed and rejoin with an empty directory.
    #[error("{0}")]
    MustRejoin(String),
    /// The store's files are not what was written. This member must not vote with them.
    #[error("store is damaged: {0}")]
    Corrupt(String),
    /// The request, or an option, makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The disk or the network failed.
    #[error("{0}")]
    Io(String),
}

impl StoreError {
    /// Whether nothing has happened and the same request may succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::NotLeader { .. } | StoreError::NoLeader(_) | StoreError::Unavailable(_))
    }

    pub(crate) fn io(what: impl std::fmt::Display, error: impl std::fmt::Display) -> StoreError {
        let text = format!("{what}: {error}");
        if text.contains(NO_SPACE) || text.contains(NO_QUOTA) { StoreError::NoSpace } else { StoreError::Io(text) }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> io::Error {
        io::Error::other(error)
    }
}
