//! The error of starting and running the server, and how store errors become a `Status`.

use trireme_api::gvk::GroupResource;
use trireme_api::status::Status;
use trireme_raft::StoreError;

use crate::storage::sealing::SealingError;

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
///
/// If the write certainly did not happen, the answer is "ServerTimeout" with a Retry-After, as upstream's while its etcd cannot be
/// reached: clients send the request again. If it may have happened, the answer is "Timeout" without one: clients read first.
pub fn store_status(error: &StoreError, resource: &GroupResource, operation: &str) -> Status {
    match error {
        StoreError::NotLeader { .. } | StoreError::NoLeader(_) | StoreError::Unavailable(_) => {
            Status::server_timeout(resource, operation, 1)
        }
        StoreError::Corrupt(what) | StoreError::MustRejoin(what) => {
            // From now on this member is fenced: the next attempt reaches another member, or this one after its repair.
            tracing::error!(what, "a request met damage");
            Status::server_timeout(resource, operation, 1)
        }
        StoreError::OutcomeUnknown { .. } | StoreError::ProposalExpired | StoreError::ResultForgotten { .. } => {
            Status::timeout("request did not complete within the allotted time: the outcome of the write is unknown", 0)
        }
        StoreError::Fenced => Status::conflict(resource, "", "the leadership under which this was written has ended"),
        StoreError::Compacted { .. } => Status::expired("The resourceVersion for the provided list is too old."),
        StoreError::FutureRevision { requested, current } => {
            Status::resource_version_too_large(u64::try_from(*requested).unwrap_or(0), u64::try_from(*current).unwrap_or(0))
        }
        StoreError::TooLarge { limit_bytes, .. } => Status::body_too_large(*limit_bytes),
        StoreError::NoSpace => Status::failure(507, "InsufficientStorage", "the store has no space left; deleting objects makes room"),
        StoreError::Shutdown => Status::service_unavailable("the server is shutting down").with_retry_after(1),
        _ => Status::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's clients decide by the reason and by Retry-After: with the latter they send any request again.
    #[test]
    fn only_what_was_not_done_may_be_sent_again() {
        let text = || "why".to_owned();
        let not_done = [
            StoreError::NotLeader { leader_id: None },
            StoreError::NoLeader(text()),
            StoreError::Unavailable(text()),
            StoreError::Corrupt(text()),
            StoreError::MustRejoin(text()),
        ];
        let perhaps_done = [
            StoreError::OutcomeUnknown { proposal_id: 1, reason: text() },
            StoreError::ProposalExpired,
            StoreError::ResultForgotten { revision: 7 },
        ];
        let of = |error: &StoreError| store_status(error, &GroupResource::new("apps", "deployments"), "create");
        for error in not_done {
            let status = of(&error);
            assert_eq!((status.code, status.reason.as_str()), (500, "ServerTimeout"), "{error}");
            assert_eq!(status.retry_after_secs(), Some(1), "{error}");
        }
        for error in perhaps_done {
            let status = of(&error);
            assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"), "{error}");
            assert_eq!(status.retry_after_secs(), None, "{error}");
        }
        let shutdown = of(&StoreError::Shutdown);
        assert_eq!((shutdown.code, shutdown.retry_after_secs()), (503, Some(1)));
        assert_eq!(of(&StoreError::Halted(text())).code, 500);
    }
}
