//! etcd's Lease service.
//!
//! A lease that hangs on hidden keys does not exist for outside clients: revoking it would delete those keys.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trireme_proto::etcd;
use trireme_raft::{LeaseInfo, StoreError};

use crate::backend::{Backend, requires_leader};
use crate::error::{self, status};

/// etcd's limit.
const MAX_TTL_SECS: i64 = 9_000_000_000;
/// Below, a lease would run out before a client could keep it alive across an election; etcd raises it to this, too.
const MIN_TTL_SECS: i64 = 2;
const ANSWERS_WAITING: usize = 16;

/// The service.
pub(crate) struct LeaseService {
    backend: Backend,
}

// === impl LeaseService ===

impl LeaseService {
    pub(crate) fn new(backend: Backend) -> LeaseService {
        LeaseService { backend }
    }

    /// A lease, if there is one for this client.
    fn lease(&self, id: i64) -> Result<Option<LeaseInfo>, Status> {
        lease(&self.backend, id)
    }
}

#[tonic::async_trait]
impl etcd::lease_server::Lease for LeaseService {
    type LeaseKeepAliveStream = ReceiverStream<Result<etcd::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, request: Request<etcd::LeaseGrantRequest>) -> Result<Response<etcd::LeaseGrantResponse>, Status> {
        let etcd::LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_TTL_SECS {
            return Err(error::LEASE_TTL_TOO_LARGE.into());
        }
        let granted = self.backend.store().lease_grant(ttl.max(MIN_TTL_SECS), id).await.map_err(status)?;
        let header = self.backend.header_now();
        Ok(Response::new(etcd::LeaseGrantResponse { header, id: granted.id, ttl: granted.ttl_secs, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<etcd::LeaseRevokeRequest>) -> Result<Response<etcd::LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        self.backend.barrier().await?;
        if self.lease(id)?.is_none() {
            return Err(error::LEASE_NOT_FOUND.into());
        }
        self.backend.store().lease_revoke(id).await.map_err(status)?;
        Ok(Response::new(etcd::LeaseRevokeResponse { header: self.backend.header_now() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<etcd::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let needs_leader = requires_leader(request.metadata().as_ref());
        let mut requests = request.into_inner();
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING);
        let backend = self.backend.clone();
        tokio::spawn(async move {
            let refreshed = async {
                while let Ok(Some(request)) = requests.message().await {
                    if answers.send(keep_alive(&backend, request.id).await).await.is_err() {
                        return;
                    }
                }
            };
            let ended: Status = tokio::select! {
                () = refreshed => return,
                () = backend.stopped() => error::STOPPED.into(),
                () = backend.leader_lost(), if needs_leader => error::NO_LEADER.into(),
            };
            // A send fails where the client is gone.
            let _ = answers.send(Err(ended)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<etcd::LeaseTimeToLiveRequest>,
    ) -> Result<Response<etcd::LeaseTimeToLiveResponse>, Status> {
        let etcd::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        self.backend.barrier().await?;
        let header = self.backend.header_now();
        Ok(Response::new(match self.lease(id)? {
            Some(lease) => etcd::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: lease.remaining_secs,
                granted_ttl: lease.ttl_secs,
                keys: if keys { lease.keys } else { Vec::new() },
            },
            None => etcd::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
        }))
    }

    async fn lease_leases(&self, _request: Request<etcd::LeaseLeasesRequest>) -> Result<Response<etcd::LeaseLeasesResponse>, Status> {
        self.backend.barrier().await?;
        let mut leases = Vec::new();
        for id in self.backend.store().leases().map_err(status)? {
            if self.lease(id)?.is_some() {
                leases.push(etcd::LeaseStatus { id });
            }
        }
        Ok(Response::new(etcd::LeaseLeasesResponse { header: self.backend.header_now(), leases }))
    }
}

fn lease(backend: &Backend, id: i64) -> Result<Option<LeaseInfo>, Status> {
    let lease = backend.store().lease_info(id).map_err(status)?;
    Ok(lease.filter(|lease| !backend.hides_lease(&lease.keys)))
}

/// A lease that does not exist has no time left; that is no error.
async fn keep_alive(backend: &Backend, id: i64) -> Result<etcd::LeaseKeepAliveResponse, Status> {
    let hidden = !backend.hidden().ranges().is_empty()
        && backend.store().lease_info(id).map_err(status)?.is_some_and(|lease| backend.hides_lease(&lease.keys));
    if hidden {
        return Ok(etcd::LeaseKeepAliveResponse { header: backend.header_now(), id, ttl: 0 });
    }
    let ttl = match backend.store().lease_keep_alive(id).await {
        Ok(lease) => lease.ttl_secs,
        Err(StoreError::LeaseNotFound(_)) => 0,
        Err(error) => return Err(status(error)),
    };
    Ok(etcd::LeaseKeepAliveResponse { header: backend.header_now(), id, ttl })
}
