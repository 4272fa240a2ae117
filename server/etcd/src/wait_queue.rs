//! The wait queue that locks and elections are built on.
//!
//! Each waiter has a key below one prefix, attached to a lease; the key with the lowest create revision is the holder's. This is the protocol of
//! etcd's client library (its `concurrency` package), so that callers of these services and users of that library share one queue.

use std::time::Duration;

use bytes::Bytes;
use tonic::Status;
use trireme_proto::etcd;
use trireme_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use trireme_proto::etcd::event::EventType;
use trireme_proto::etcd::range_request::{SortOrder, SortTarget};
use trireme_proto::etcd::request_op::Request as Op;
use trireme_proto::etcd::response_op::Response as Done;
use trireme_raft::{Watch, WatchError};

use crate::backend::Backend;
use crate::error::{self, status};

/// TTL of a lease that is made for a caller without one, as etcd's client sessions have it.
const OWN_LEASE_TTL_SECS: i64 = 60;
/// How often the lease of such a caller is kept alive while it waits.
const OWN_LEASE_REFRESH: Duration = Duration::from_secs(20);

/// The queue of one name.
pub(crate) struct WaitQueue<'a> {
    backend: &'a Backend,
    prefix: Bytes,
}

/// One waiter's key. Dropping it before [`Waiter::keep`] deletes the key.
pub(crate) struct Waiter {
    backend: Backend,
    pub(crate) key: Bytes,
    pub(crate) lease: i64,
    pub(crate) create_revision: i64,
    /// The value of the key.
    pub(crate) value: Bytes,
    own_lease: bool,
    kept: bool,
}

// === impl WaitQueue ===

impl<'a> WaitQueue<'a> {
    pub(crate) fn new(backend: &'a Backend, name: &Bytes) -> WaitQueue<'a> {
        WaitQueue { backend, prefix: [name.as_ref(), b"/"].concat().into() }
    }

    /// Adds a waiter, or finds the one that this lease has already.
    pub(crate) async fn join(&self, lease: i64, value: Bytes) -> Result<Waiter, Status> {
        let own_lease = lease == 0;
        let lease = match own_lease {
            true => self.backend.store().lease_grant(OWN_LEASE_TTL_SECS, 0).await.map_err(status)?.id,
            false => lease,
        };
        let key = Bytes::from([self.prefix.as_ref(), format!("{lease:x}").as_bytes()].concat());
        let put = etcd::PutRequest { key: key.clone(), value: value.clone(), lease, ..Default::default() };
        let get = etcd::RangeRequest { key: key.clone(), ..Default::default() };
        let txn = etcd::TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![op(Op::RequestPut(put))],
            failure: vec![op(Op::RequestRange(get))],
        };
        let done = self.backend.txn(txn).await?;
        let found = match done.responses.into_iter().next().and_then(|done| done.response) {
            Some(Done::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let (create_revision, value) = match found {
            Some(kv) => (kv.create_revision, kv.value),
            None => (done.header.map_or(0, |header| header.revision), value),
        };
        Ok(Waiter { backend: self.backend.clone(), key, lease, create_revision, value, own_lease, kept: false })
    }

    /// Waits until `waiter` is the holder.
    pub(crate) async fn acquire(&self, waiter: &Waiter) -> Result<(), Status> {
        let acquired = async {
            while let Some((before, revision)) = self.before(waiter.create_revision).await? {
                self.gone(before, revision).await?;
            }
            Ok(())
        };
        tokio::select! {
            acquired = acquired => acquired,
            () = self.backend.stopped() => Err(error::STOPPED.into()),
            error = waiter.refresh(), if waiter.own_lease => Err(error),
        }
    }

    /// The holder's key, and the revision of the answer.
    pub(crate) async fn first(&self) -> Result<(Option<etcd::KeyValue>, i64), Status> {
        self.one(0, SortOrder::Ascend).await
    }

    /// The key created last before `create_revision`, and the revision of the answer.
    async fn before(&self, create_revision: i64) -> Result<Option<(Bytes, i64)>, Status> {
        let (found, revision) = self.one(create_revision - 1, SortOrder::Descend).await?;
        Ok(found.map(|kv| (kv.key, revision)))
    }

    async fn one(&self, max_create_revision: i64, order: SortOrder) -> Result<(Option<etcd::KeyValue>, i64), Status> {
        let request = etcd::RangeRequest {
            key: self.prefix.clone(),
            // The prefix ends with a slash; what follows a slash is a zero.
            range_end: [&self.prefix[..self.prefix.len() - 1], b"0"].concat().into(),
            limit: 1,
            sort_order: order as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision,
            ..Default::default()
        };
        let response = self.backend.range(request).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        Ok((response.kvs.into_iter().next(), revision))
    }

    async fn gone(&self, key: Bytes, seen_at: i64) -> Result<(), Status> {
        let mut watch = self.watch(key, Bytes::new(), seen_at + 1)?;
        loop {
            let batch = watch.next().await.map_err(watch_status)?;
            if batch.events.iter().any(|event| event.r#type() == EventType::Delete) {
                return Ok(());
            }
        }
    }

    /// Watches keys that the caller may see.
    pub(crate) fn watch(&self, key: Bytes, range_end: Bytes, from: i64) -> Result<Watch, Status> {
        self.backend.store().watch(key, range_end, from).map_err(status)
    }

    /// The range of all keys of this queue.
    pub(crate) fn range(&self) -> (Bytes, Bytes) {
        (self.prefix.clone(), [&self.prefix[..self.prefix.len() - 1], b"0"].concat().into())
    }
}

// === impl Waiter ===

impl Waiter {
    /// Whether its key still exists: the lease may have expired meanwhile.
    pub(crate) async fn exists(&self) -> Result<bool, Status> {
        let found = self.backend.range(etcd::RangeRequest { key: self.key.clone(), ..Default::default() }).await?;
        Ok(found.kvs.first().is_some_and(|kv| kv.create_revision == self.create_revision))
    }

    /// Hands the key to the caller, who deletes it or lets the lease expire.
    pub(crate) fn keep(mut self) -> (Bytes, i64, i64) {
        self.kept = true;
        (std::mem::take(&mut self.key), self.create_revision, self.lease)
    }

    /// Keeps a lease that was made for it alive; returns when that fails.
    async fn refresh(&self) -> Status {
        loop {
            tokio::time::sleep(OWN_LEASE_REFRESH).await;
            if let Err(error) = self.backend.store().lease_keep_alive(self.lease).await {
                return status(error);
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The caller stopped waiting. Without this, the next waiter would wait for the lease to expire.
        let (backend, key, create_revision) = (self.backend.clone(), self.key.clone(), self.create_revision);
        tokio::spawn(async move {
            if let Err(error) = leave(&backend, key, create_revision).await {
                tracing::debug!(%error, "the key of a waiter that left stays until its lease expires");
            }
        });
    }
}

/// Deletes a key that was created at `create_revision`; the answer says whether it existed.
pub(crate) async fn leave(backend: &Backend, key: Bytes, create_revision: i64) -> Result<etcd::TxnResponse, Status> {
    let delete = etcd::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let txn = etcd::TxnRequest {
        compare: vec![created_at(key, create_revision)],
        success: vec![op(Op::RequestDeleteRange(delete))],
        ..Default::default()
    };
    backend.txn(txn).await
}

/// Holds where the key was created at this revision.
pub(crate) fn created_at(key: Bytes, create_revision: i64) -> etcd::Compare {
    etcd::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key,
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(create_revision)),
    }
}

pub(crate) fn op(request: Op) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

pub(crate) fn watch_status(error: WatchError) -> Status {
    match error {
        WatchError::Compacted { .. } => error::COMPACTED.into(),
        WatchError::Shutdown => error::STOPPED.into(),
        WatchError::Reset => Status::unavailable("etcdserver: the store was reset"),
        WatchError::Store(error) => status(error),
    }
}
