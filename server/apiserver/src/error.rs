//! The error of starting and running the server, and how store errors become a `Status`.

use trireme_api::gvk::GroupResource;
use trireme_api::status::Status;
use trireme_raft::StoreError;

use crate::sealing::SealingError;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A stored value cannot be read.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// TLS material is unusable.
    #[error("TLS: {0}")]
    Tls(String),
}

impl Error {
    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Store(e) if e.is_retryable())
    }
}

/// An answer, or the `Status` that says why there is none. Boxed because it is large and rare.
pub type Answer<T> = Result<T, Box<Status>>;

/// A store error as clients see it.
pub fn store_status(error: &StoreError, resource: &GroupResource, operation: &str) -> Status {
    match error {
        StoreError::NotLeader { .. } | StoreError::NoLeader(_) => Status::server_timeout(resource, operation, 1),
        StoreError::OutcomeUnknown { .. } => {
            Status::timeout("request did not complete within the allotted time: the outcome of the write is unknown", 0)
        }
        StoreError::Fenced => Status::conflict(resource, "", "the leadership under which this was written has ended"),
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        StoreError::FutureRevision { requested, current } => {
            Status::resource_version_too_large(u64::try_from(*requested).unwrap_or(0), u64::try_from(*current).unwrap_or(0))
        }
        StoreError::TooLarge { limit_bytes, .. } => Status::body_too_large(*limit_bytes),
        StoreError::NoSpace => Status::failure(507, "InsufficientStorage", "the store has no space left; deleting objects makes room"),
        StoreError::Shutdown => Status::service_unavailable("the server is shutting down"),
        _ => Status::internal(error),
    }
}
