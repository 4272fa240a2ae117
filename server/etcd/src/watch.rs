//! etcd's Watch service: one stream, many watchers.
//!
//! A stream is one task that owns its watchers. Watchers pull from the store, so nothing is queued for a client that does
//! not read; while an answer cannot be sent, no further batch is taken. Keys and values of events are shared with the store
//! and all other watchers until they are written to the connection.
//!
//! Answers to <https://etcd.io/docs/v3.6/learning/api/#watch-api>.

mod session;
mod watcher;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trireme_proto::etcd;

use crate::backend::{Backend, requires_leader};
use session::Session;

/// Answers on their way to the connection.
const ANSWERS_WAITING: usize = 4;

/// The service.
pub(crate) struct WatchService {
    backend: Backend,
}

// === impl WatchService ===

impl WatchService {
    pub(crate) fn new(backend: Backend) -> WatchService {
        WatchService { backend }
    }
}

#[tonic::async_trait]
impl etcd::watch_server::Watch for WatchService {
    type WatchStream = ReceiverStream<Result<etcd::WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<etcd::WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let needs_leader = requires_leader(request.metadata().as_ref());
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING);
        tokio::spawn(Session::new(self.backend.clone(), answers).run(request.into_inner(), needs_leader));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
