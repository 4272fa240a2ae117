//! etcd's errors: codes and texts, which clients compare word by word.
//!
//! Facts from etcd's `api/v3rpc/rpctypes/error.go`.

use tonic::{Code, Status};
use trireme_raft::StoreError;

/// An error that is etcd's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    code: Code,
    text: &'static str,
}

macro_rules! refusals {
    ($($name:ident $code:ident $text:literal)*) => {
        $(pub(crate) const $name: Refusal = Refusal { code: Code::$code, text: concat!("etcdserver: ", $text) };)*
    };
}

refusals! {
    EMPTY_KEY InvalidArgument "key is not provided"
    KEY_NOT_FOUND InvalidArgument "key not found"
    TOO_MANY_OPS InvalidArgument "too many operations in txn request"
    DUPLICATE_KEY InvalidArgument "duplicate key given in txn request"
    TOO_LARGE InvalidArgument "request is too large"
    COMPACTED OutOfRange "mvcc: required revision has been compacted"
    FUTURE_REVISION OutOfRange "mvcc: required revision is a future revision"
    NO_SPACE ResourceExhausted "mvcc: database space exceeded"
    LEASE_NOT_FOUND NotFound "requested lease not found"
    LEASE_EXISTS FailedPrecondition "lease already exists"
    LEASE_TTL_TOO_LARGE OutOfRange "too large lease TTL"
    MEMBER_NOT_FOUND NotFound "member not found"
    MEMBER_BAD_URLS InvalidArgument "given member URLs are invalid"
    MEMBER_NOT_LEARNER FailedPrecondition "can only promote a learner member"
    MEMBERS_NOT_ENOUGH FailedPrecondition "re-configuration failed due to not enough started members"
    BAD_TRANSFEREE FailedPrecondition "bad leader transferee"
    PERMISSION_DENIED PermissionDenied "permission denied"
    AUTH_NOT_ENABLED FailedPrecondition "authentication is not enabled"
    NO_LEADER Unavailable "no leader"
    STOPPED Unavailable "server stopped"
    TIMED_OUT Unavailable "request timed out"
    CORRUPT DataLoss "corrupt cluster"
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn text(self) -> &'static str {
        self.text
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        Status::new(refusal.code, refusal.text)
    }
}

/// What a client is told of a store's error.
pub(crate) fn status(error: StoreError) -> Status {
    let refusal = match error {
        StoreError::NotLeader { .. } | StoreError::NoLeader(_) => NO_LEADER,
        StoreError::OutcomeUnknown { .. } | StoreError::ProposalExpired | StoreError::ResultForgotten { .. } => TIMED_OUT,
        StoreError::Compacted { .. } => COMPACTED,
        StoreError::FutureRevision { .. } => FUTURE_REVISION,
        StoreError::LeaseNotFound(_) => LEASE_NOT_FOUND,
        StoreError::LeaseExists(_) => LEASE_EXISTS,
        StoreError::DuplicateKey => DUPLICATE_KEY,
        StoreError::KeyNotFound => KEY_NOT_FOUND,
        StoreError::TooLarge { .. } => TOO_LARGE,
        StoreError::NoSpace => NO_SPACE,
        StoreError::Shutdown => STOPPED,
        StoreError::Corrupt(what) => {
            tracing::error!(what, "an etcd client met damage");
            CORRUPT
        }
        StoreError::Invalid(what) => return Status::invalid_argument(format!("etcdserver: {what}")),
        StoreError::Conflict(what) => return Status::failed_precondition(format!("etcdserver: {what}")),
        other => return Status::unavailable(format!("etcdserver: {other}")),
    };
    refusal.into()
}
