//! etcd's Election service.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use trireme_proto::election::election_server::Election;
use trireme_proto::election::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse, ResignRequest,
    ResignResponse,
};
use trireme_proto::etcd;
use trireme_proto::etcd::event::EventType;
use trireme_proto::etcd::request_op::Request as Op;

use crate::backend::Backend;
use crate::error;
use crate::wait_queue::{WaitQueue, created_at, leave, op, watch_status};

const ANSWERS_WAITING: usize = 16;

/// The service.
pub(crate) struct ElectionService {
    backend: Backend,
}

// === impl ElectionService ===

impl ElectionService {
    pub(crate) fn new(backend: Backend) -> ElectionService {
        ElectionService { backend }
    }

    /// Puts a leader's value, as long as it leads.
    async fn proclaim(&self, leader: &LeaderKey, value: Bytes) -> Result<etcd::TxnResponse, Status> {
        let put = etcd::PutRequest { key: leader.key.clone(), value, lease: leader.lease, ..Default::default() };
        let txn = etcd::TxnRequest {
            compare: vec![created_at(leader.key.clone(), leader.rev)],
            success: vec![op(Op::RequestPut(put))],
            ..Default::default()
        };
        let done = self.backend.txn(txn).await?;
        match done.succeeded {
            true => Ok(done),
            false => Err(Status::unknown("election: not leader")),
        }
    }
}

fn required(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

#[tonic::async_trait]
impl Election for ElectionService {
    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn campaign(&self, request: Request<CampaignRequest>) -> Result<Response<CampaignResponse>, Status> {
        let CampaignRequest { name, lease, value } = request.into_inner();
        let queue = WaitQueue::new(&self.backend, &name);
        let waiter = queue.join(lease, value.clone()).await?;
        if waiter.value != value {
            let leader = LeaderKey { name: name.clone(), key: waiter.key.clone(), rev: waiter.create_revision, lease: waiter.lease };
            ElectionService::proclaim(self, &leader, value).await?;
        }
        queue.acquire(&waiter).await?;
        if !waiter.exists().await? {
            return Err(Status::unknown("election: session is expired"));
        }
        let (key, rev, lease) = waiter.keep();
        let leader = Some(LeaderKey { name, key, rev, lease });
        Ok(Response::new(CampaignResponse { header: self.backend.header_now(), leader }))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Result<Response<ProclaimResponse>, Status> {
        let ProclaimRequest { leader, value } = request.into_inner();
        let done = ElectionService::proclaim(self, &required(leader)?, value).await?;
        Ok(Response::new(ProclaimResponse { header: done.header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let queue = WaitQueue::new(&self.backend, &request.into_inner().name);
        match queue.first().await? {
            (Some(kv), revision) => Ok(Response::new(LeaderResponse { header: Some(self.backend.header(revision)), kv: Some(kv) })),
            (None, _) => Err(Status::unknown("election: no leader")),
        }
    }

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let name = request.into_inner().name;
        let backend = self.backend.clone();
        // Refused here rather than in the stream.
        WaitQueue::new(&backend, &name).first().await?;
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING);
        tokio::spawn(async move {
            let queue = WaitQueue::new(&backend, &name);
            let ended: Status = tokio::select! {
                () = answers.closed() => return,
                () = backend.stopped() => error::STOPPED.into(),
                error = observe(&backend, &queue, &answers) => error,
            };
            // A send fails where the client is gone.
            let _ = answers.send(Err(ended)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let leader = required(request.into_inner().leader)?;
        let done = leave(&self.backend, leader.key, leader.rev).await?;
        Ok(Response::new(ResignResponse { header: done.header }))
    }
}

/// Sends every leader and every value it proclaims; returns why it ended.
async fn observe(backend: &Backend, queue: &WaitQueue<'_>, answers: &mpsc::Sender<Result<LeaderResponse, Status>>) -> Status {
    let followed = async {
        loop {
            let (leader, revision) = queue.first().await?;
            let Some(leader) = leader else {
                let (key, range_end) = queue.range();
                queue.watch(key, range_end, revision + 1)?.next().await.map_err(watch_status)?;
                continue;
            };
            let mut watch = queue.watch(leader.key.clone(), Bytes::new(), revision + 1)?;
            send(backend, answers, leader, revision).await?;
            'leads: loop {
                let batch = watch.next().await.map_err(watch_status)?;
                for event in batch.events.iter() {
                    match (event.r#type(), &event.kv) {
                        (EventType::Put, Some(kv)) => send(backend, answers, kv.clone(), kv.mod_revision).await?,
                        _ => break 'leads,
                    }
                }
            }
        }
    };
    let ended: Result<std::convert::Infallible, Status> = followed.await;
    match ended {
        Err(status) => status,
    }
}

async fn send(
    backend: &Backend,
    answers: &mpsc::Sender<Result<LeaderResponse, Status>>,
    kv: etcd::KeyValue,
    revision: i64,
) -> Result<(), Status> {
    let answer = LeaderResponse { header: Some(backend.header(revision)), kv: Some(kv) };
    answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the client has gone"))
}
