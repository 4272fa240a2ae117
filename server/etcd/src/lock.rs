//! etcd's Lock service.

use tonic::{Request, Response, Status};
use trireme_proto::etcd;
use trireme_proto::etcd::request_op::Request as Op;
use trireme_proto::lock::lock_server::Lock;
use trireme_proto::lock::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use crate::backend::Backend;
use crate::error;
use crate::kv::only;
use crate::wait_queue::WaitQueue;

/// The service.
pub(crate) struct LockService {
    backend: Backend,
}

// === impl LockService ===

impl LockService {
    pub(crate) fn new(backend: Backend) -> LockService {
        LockService { backend }
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockRequest { name, lease } = request.into_inner();
        let queue = WaitQueue::new(&self.backend, &name);
        let waiter = queue.join(lease, bytes::Bytes::new()).await?;
        queue.acquire(&waiter).await?;
        if !waiter.exists().await? {
            return Err(Status::unknown("mutex: session is expired"));
        }
        let (key, ..) = waiter.keep();
        Ok(Response::new(LockResponse { header: self.backend.header_now(), key }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(error::EMPTY_KEY.into());
        }
        let delete = etcd::DeleteRangeRequest { key, ..Default::default() };
        let done = self.backend.txn(only(vec![Op::RequestDeleteRange(delete)])).await?;
        Ok(Response::new(UnlockResponse { header: done.header }))
    }
}
