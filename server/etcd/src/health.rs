//! gRPC's health service: serving means that reads and writes find a leader.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use trireme_proto::health::health_check_response::ServingStatus;
use trireme_proto::health::health_server::Health;
use trireme_proto::health::{HealthCheckRequest, HealthCheckResponse};
use trireme_raft::StoreStatus;

use crate::backend::{Backend, has_leader};

/// Services that one may ask for. The empty name is the server as a whole.
const KNOWN: &[&str] =
    &["", "etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"];

/// The service.
pub(crate) struct HealthService {
    backend: Backend,
}

// === impl HealthService ===

impl HealthService {
    pub(crate) fn new(backend: Backend) -> HealthService {
        HealthService { backend }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

fn serving(status: &StoreStatus) -> ServingStatus {
    if has_leader(status) { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match KNOWN.contains(&request.into_inner().service.as_str()) {
            true => Ok(Response::new(answer(serving(&self.backend.status())))),
            false => Err(Status::not_found("unknown service")),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = KNOWN.contains(&request.into_inner().service.as_str());
        let backend = self.backend.clone();
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut status = backend.store().status();
            let mut said = if known { serving(&status.borrow_and_update()) } else { ServingStatus::ServiceUnknown };
            while answers.send(Ok(answer(said))).await.is_ok() {
                tokio::select! {
                    () = answers.closed() => return,
                    () = backend.stopped() => return,
                    changed = status.wait_for(|status| known && serving(status) != said) => match changed {
                        Ok(now) => said = serving(&now),
                        Err(_) => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
