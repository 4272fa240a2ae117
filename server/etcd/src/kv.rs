//! etcd's KV service: range, put, delete, transaction, compaction.

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use trireme_proto::etcd;
use trireme_proto::etcd::request_op::Request as Op;
use trireme_proto::etcd::response_op::Response as Done;

use crate::backend::{Backend, blocking};
use crate::error::{self, status};
use crate::hidden::Reach;

/// etcd's default `--max-request-bytes`.
pub(crate) const MAX_REQUEST_BYTES: usize = 3 << 19;
/// etcd's default `--max-txn-ops`.
const MAX_TXN_OPS: usize = 128;

/// The service.
pub(crate) struct KvService {
    backend: Backend,
}

// === impl KvService ===

impl KvService {
    pub(crate) fn new(backend: Backend) -> KvService {
        KvService { backend }
    }
}

#[tonic::async_trait]
impl etcd::kv_server::Kv for KvService {
    async fn range(&self, request: Request<etcd::RangeRequest>) -> Result<Response<etcd::RangeResponse>, Status> {
        self.backend.range(request.into_inner()).await.map(Response::new)
    }

    async fn put(&self, request: Request<etcd::PutRequest>) -> Result<Response<etcd::PutResponse>, Status> {
        let put = request.into_inner();
        check_size(&put)?;
        let mut txn = self.backend.txn(only(vec![Op::RequestPut(put)])).await?;
        let header = txn.header.take();
        match txn.responses.pop().and_then(|done| done.response) {
            Some(Done::ResponsePut(done)) => Ok(Response::new(etcd::PutResponse { header, ..done })),
            other => Err(unexpected("put", other.is_some())),
        }
    }

    async fn delete_range(&self, request: Request<etcd::DeleteRangeRequest>) -> Result<Response<etcd::DeleteRangeResponse>, Status> {
        let delete = request.into_inner();
        check_size(&delete)?;
        if delete.key.is_empty() {
            return Err(error::EMPTY_KEY.into());
        }
        let hidden = self.backend.hidden();
        if hidden.reach(&delete.key, &delete.range_end) == Reach::Wholly {
            return Err(error::PERMISSION_DENIED.into());
        }
        let pieces = hidden.visible(&delete.key, &delete.range_end).into_iter();
        let pieces = pieces.map(|(key, range_end)| Op::RequestDeleteRange(etcd::DeleteRangeRequest { key, range_end, ..delete.clone() }));
        let txn = self.backend.txn(only(pieces.collect())).await?;
        let mut all = etcd::DeleteRangeResponse { header: txn.header, ..Default::default() };
        for done in txn.responses {
            let Some(Done::ResponseDeleteRange(done)) = done.response else { return Err(unexpected("delete", true)) };
            all.deleted += done.deleted;
            all.prev_kvs.extend(done.prev_kvs);
        }
        Ok(Response::new(all))
    }

    async fn txn(&self, request: Request<etcd::TxnRequest>) -> Result<Response<etcd::TxnResponse>, Status> {
        let txn = request.into_inner();
        check_size(&txn)?;
        check_ops(&txn)?;
        self.backend.txn(txn).await.map(Response::new)
    }

    async fn compact(&self, request: Request<etcd::CompactionRequest>) -> Result<Response<etcd::CompactionResponse>, Status> {
        let etcd::CompactionRequest { revision, physical } = request.into_inner();
        self.backend.barrier().await?;
        let store = self.backend.store();
        let (current, compacted) = (store.revision(), store.compact_revision());
        let floor = self.backend.retention().floor(Instant::now(), current);
        if revision > current {
            return Err(error::FUTURE_REVISION.into());
        }
        let wanted = revision.min(floor);
        // The store decides how far below that it goes: holders keep the history that they read.
        if wanted > compacted || revision <= compacted {
            store.compact(wanted).await.map_err(status)?;
        }
        if physical {
            let backend = self.backend.clone();
            blocking(move || backend.store().compact_now().map_err(status)).await?;
        }
        Ok(Response::new(etcd::CompactionResponse { header: self.backend.header_now() }))
    }
}

/// A transaction of these operations, whatever the state.
pub(crate) fn only(ops: Vec<Op>) -> etcd::TxnRequest {
    let success = ops.into_iter().map(|op| etcd::RequestOp { request: Some(op) }).collect();
    etcd::TxnRequest { success, ..Default::default() }
}

fn check_size(request: &impl Message) -> Result<(), Status> {
    match request.encoded_len() > MAX_REQUEST_BYTES {
        true => Err(error::TOO_LARGE.into()),
        false => Ok(()),
    }
}

fn check_ops(txn: &etcd::TxnRequest) -> Result<(), Status> {
    if txn.compare.len().max(txn.success.len()).max(txn.failure.len()) > MAX_TXN_OPS {
        return Err(error::TOO_MANY_OPS.into());
    }
    for op in txn.success.iter().chain(&txn.failure) {
        if let Some(Op::RequestTxn(nested)) = &op.request {
            check_ops(nested)?;
        }
    }
    Ok(())
}

fn unexpected(what: &str, answered: bool) -> Status {
    Status::internal(format!("etcdserver: a {what} was answered with {}", if answered { "something else" } else { "nothing" }))
}
