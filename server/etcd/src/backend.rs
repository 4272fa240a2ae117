//! What all services share: the store seen through what is hidden, consistent reads, headers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use trireme_proto::etcd;
use trireme_proto::etcd::request_op::Request;
use trireme_raft::{Store, StoreStatus};

use crate::EtcdOptions;
use crate::error::{self, status};
use crate::hidden::{HiddenKeys, Reach};
use crate::retention::Retention;

/// A stream that asked for a leader ends when there was none for this long: several elections.
const NO_LEADER_GRACE: Duration = Duration::from_secs(3);

/// The store as outside clients see it.
#[derive(Clone)]
pub(crate) struct Backend {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: EtcdOptions,
    retention: Retention,
    cancel: CancellationToken,
}

// === impl Backend ===

impl Backend {
    pub(crate) fn new(store: Store, options: EtcdOptions, cancel: CancellationToken) -> Backend {
        let retention = Retention::new(options.retention);
        Backend { inner: Arc::new(Inner { store, options, retention, cancel }) }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn hidden(&self) -> &HiddenKeys {
        &self.inner.options.hidden
    }

    pub(crate) fn options(&self) -> &EtcdOptions {
        &self.inner.options
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.inner.retention
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.inner.cancel
    }

    pub(crate) fn status(&self) -> StoreStatus {
        self.store().status().borrow().clone()
    }

    /// The header of an answer as of `revision`.
    pub(crate) fn header(&self, revision: i64) -> etcd::ResponseHeader {
        let store = self.store();
        let raft_term = store.status().borrow().term;
        etcd::ResponseHeader { cluster_id: store.cluster_id(), member_id: store.node_id(), revision, raft_term }
    }

    /// The header of an answer as of now.
    pub(crate) fn header_now(&self) -> Option<etcd::ResponseHeader> {
        Some(self.header(self.store().revision()))
    }

    /// Waits until everything acknowledged so far can be read here.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        self.store().barrier().await.map_err(status).map(drop)
    }

    /// Reads, from the latest state unless the request is content with this member's.
    pub(crate) async fn range(&self, request: etcd::RangeRequest) -> Result<etcd::RangeResponse, Status> {
        if request.key.is_empty() {
            return Err(error::EMPTY_KEY.into());
        }
        if self.hidden().reach(&request.key, &request.range_end) == Reach::Wholly {
            return Err(error::PERMISSION_DENIED.into());
        }
        if !request.serializable {
            self.barrier().await?;
        }
        let mut response = if request.range_end.is_empty() {
            self.store().range(&request).map_err(status)?
        } else {
            // A range may read much from the disk: it runs on a blocking thread.
            let backend = self.clone();
            blocking(move || backend.store().range_outside(&request, backend.hidden().ranges()).map_err(status)).await?
        };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header = Some(self.header(revision));
        Ok(response)
    }

    /// Runs a transaction that touches nothing hidden.
    pub(crate) async fn txn(&self, txn: etcd::TxnRequest) -> Result<etcd::TxnResponse, Status> {
        if !self.hidden().ranges().is_empty() {
            self.check_visible(&txn)?;
        }
        let mut response = self.store().txn(txn, None).await.map_err(status)?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header = Some(self.header(revision));
        Ok(response)
    }

    /// Refuses a transaction that reads or writes hidden keys, also as part of a range: what is skipped inside of a
    /// transaction could make it mean something else.
    fn check_visible(&self, txn: &etcd::TxnRequest) -> Result<(), Status> {
        let clear = |key: &Bytes, range_end: &Bytes| match self.hidden().reach(key, range_end) {
            Reach::Clear => Ok(()),
            Reach::Partly | Reach::Wholly => Err(Status::from(error::PERMISSION_DENIED)),
        };
        for compare in &txn.compare {
            clear(&compare.key, &compare.range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Request::RequestRange(range)) => clear(&range.key, &range.range_end)?,
                Some(Request::RequestPut(put)) => clear(&put.key, &Bytes::new())?,
                Some(Request::RequestDeleteRange(delete)) => clear(&delete.key, &delete.range_end)?,
                Some(Request::RequestTxn(nested)) => self.check_visible(nested)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a lease holds hidden keys: then it is hidden itself.
    pub(crate) fn hides_lease(&self, keys: &[Bytes]) -> bool {
        keys.iter().any(|key| self.hidden().hides(key))
    }

    /// Returns when the server stops.
    pub(crate) async fn stopped(&self) {
        self.inner.cancel.cancelled().await;
    }

    /// Returns when there has been no leader for a while.
    pub(crate) async fn leader_lost(&self) {
        let mut status: watch::Receiver<StoreStatus> = self.store().status();
        loop {
            if status.wait_for(|status| !has_leader(status)).await.is_err() {
                return;
            }
            match tokio::time::timeout(NO_LEADER_GRACE, status.wait_for(has_leader)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

/// Whether a leader is known and heard of.
pub(crate) fn has_leader(status: &StoreStatus) -> bool {
    status.leader.is_some() && status.has_quorum_contact
}

/// Whether the caller would rather have an error than an answer without a leader.
pub(crate) fn requires_leader(headers: &http::HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// Runs what reads the disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::from(error::STOPPED))?
}
