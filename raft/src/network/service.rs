//! The server's end of the peer protocol: authenticates the sender, hands the request to Raft or to the store.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderError, TransferLeaderRequest, VoteRequest};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use trireme_proto::peer;
use trireme_proto::peer::peer_server::{Peer, PeerServer};

use super::listener::{PeerKey, PeerStream};
use super::receive::receive_snapshot;
use super::send::snapshot_messages;
use super::{CLUSTER_HEADER, FROM_HEADER, MAX_MESSAGE_BYTES, REMOVED_HEADER, TO_HEADER};
use crate::error::StoreError;
use crate::node::RaftNode;
use crate::store::core::Core;
use crate::types::{TypeConfig, entry_from_proto, log_id_from_proto, log_id_to_proto, require_vote, vote_to_proto};

/// Append requests that one stream may hold before Raft has taken them.
const APPEND_QUEUE: usize = 64;

struct PeerService {
    core: Arc<Core>,
}

/// Serves peers until cancelled; open streams end with it.
pub(crate) async fn serve(
    core: Arc<Core>,
    connections: tokio::sync::mpsc::Receiver<std::io::Result<PeerStream>>,
    cancel: CancellationToken,
) {
    let service =
        PeerServer::new(PeerService { core }).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(1024))
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(connections));
    // Not a graceful drain: append streams live as long as the peer does.
    tokio::select! {
        () = cancel.cancelled() => {}
        result = server => if let Err(error) = result {
            tracing::error!(%error, "the peer server ended");
        },
    }
}

// === impl PeerService ===

impl PeerService {
    /// The sender's node id, after the check of cluster, addressee and key.
    fn check<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let header = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let (cluster, to) = (header(CLUSTER_HEADER), header(TO_HEADER));
        if cluster != format!("{:x}", self.core.cluster_id) {
            return Err(self.other_cluster(cluster));
        }
        if to != self.core.node_id.to_string() {
            return Err(Status::failed_precondition(format!("this is member {}, not {to}", self.core.node_id)));
        }
        let from: u64 = header(FROM_HEADER).parse().map_err(|_| Status::invalid_argument("no sender"))?;
        let key = request.extensions().get::<PeerKey>().ok_or_else(|| Status::unauthenticated("no peer key"))?;
        // Checked per call, not only per connection: a removed member is refused at once.
        if self.core.directory.is_key_of(from, &key.0) {
            return Ok(from);
        }
        let mut refusal = Status::permission_denied(format!("this key is not the one of member {from}"));
        if self.core.state.had_member(from).map_err(status)? {
            refusal = Status::permission_denied(format!("member {from} was removed from the cluster"));
            refusal.metadata_mut().insert(REMOVED_HEADER, from.into());
        }
        Err(refusal)
    }

    /// A refusal with our cluster's id as metadata, from which the caller can tell that this member belongs to another cluster.
    fn other_cluster(&self, theirs: &str) -> Status {
        let ours = format!("{:x}", self.core.cluster_id);
        let mut status = Status::failed_precondition(format!("this is cluster {ours}, not {theirs}"));
        if let Ok(value) = ours.parse() {
            status.metadata_mut().insert(CLUSTER_HEADER, value);
        }
        status
    }

    fn raft(&self) -> Result<RaftNode, Status> {
        self.core.raft().map_err(status)
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = BoxStream<'static, Result<peer::AppendResponse, Status>>;

    async fn append(&self, request: Request<Streaming<peer::AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        let from = self.check(&request)?;
        let raft = self.raft()?;
        let mut incoming = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(APPEND_QUEUE);
        let core = self.core.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                match append_from_proto(message) {
                    Ok(rpc) => {
                        core.contact.touch(from);
                        if sender.send(rpc).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::error!(from, %error, "malformed append request");
                        return;
                    }
                }
            }
        });
        let responses = raft.stream_append(ReceiverStream::new(receiver)).map(|result| match result {
            Ok(result) => Ok(append_response(result)),
            Err(fatal) => Err(Status::unavailable(fatal.to_string())),
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn vote(&self, request: Request<peer::VoteRequest>) -> Result<Response<peer::VoteResponse>, Status> {
        self.check(&request)?;
        let answer = self.raft()?.vote(vote_request(request.into_inner())?).await.map_err(unavailable)?;
        Ok(Response::new(vote_response(&answer)))
    }

    async fn pre_vote(&self, request: Request<peer::VoteRequest>) -> Result<Response<peer::VoteResponse>, Status> {
        self.check(&request)?;
        let answer = self.raft()?.pre_vote(vote_request(request.into_inner())?).await.map_err(unavailable)?;
        Ok(Response::new(vote_response(&answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        use peer::transfer_leader_response::Result as Answer;
        self.check(&request)?;
        let request = request.into_inner();
        let from = require_vote(request.from_leader.as_ref()).map_err(status)?;
        let last = request.last_log_id.as_ref().map(log_id_from_proto);
        let transfer = TransferLeaderRequest::new(from, request.to_node_id, last);
        let result = match self.raft()?.handle_transfer_leader(transfer).await.map_err(unavailable)? {
            Ok(()) => Answer::Accepted(peer::Blank {}),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => Answer::VoteChanged(vote_to_proto(&actual)),
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Answer::NotFlushed(peer::NotFlushed {
                expected: expected.as_ref().map(log_id_to_proto),
                actual: actual.as_ref().map(log_id_to_proto),
            }),
        };
        Ok(Response::new(peer::TransferLeaderResponse { result: Some(result) }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotMessage>>,
    ) -> Result<Response<peer::SnapshotResponse>, Status> {
        let from = self.check(&request)?;
        let raft = self.raft()?;
        let path = self.core.data_dir.incoming_snapshot();
        let (vote, snapshot) = receive_snapshot(&path, self.core.cluster_id, request.into_inner()).await.map_err(status)?;
        tracing::info!(from, snapshot = ?snapshot.manifest().last_log_id, "received a snapshot");
        let meta = snapshot.meta().map_err(status)?;
        let answer =
            raft.install_full_snapshot(vote, openraft::Snapshot { meta, snapshot: snapshot.clone() }).await.map_err(unavailable)?;
        // An installed snapshot has been renamed away; one that Raft did not want goes with its last handle.
        if snapshot.path().exists() {
            snapshot.supersede();
        }
        Ok(Response::new(peer::SnapshotResponse { vote: Some(vote_to_proto(&answer.vote)) }))
    }

    async fn propose(&self, request: Request<peer::ProposeRequest>) -> Result<Response<peer::ProposeResponse>, Status> {
        let from = self.check(&request)?;
        self.core.clients.interest(from).note();
        let commands = request.into_inner().commands;
        let proposed = futures::future::join_all(commands.into_iter().map(|command| self.core.propose_here(command)));
        Ok(Response::new(peer::ProposeResponse { proposed: proposed.await }))
    }

    async fn read_index(&self, request: Request<peer::ReadIndexRequest>) -> Result<Response<peer::ReadIndexResponse>, Status> {
        use peer::read_index_response::Result as Answer;
        let from = self.check(&request)?;
        self.core.clients.interest(from).note();
        let result = match self.core.read_index_here().await {
            Ok(index) => Answer::Index(index),
            Err(error) => Answer::Refused(peer::Refused { leader_id: 0, reason: error.to_string() }),
        };
        Ok(Response::new(peer::ReadIndexResponse { result: Some(result) }))
    }

    type FetchSnapshotStream = BoxStream<'static, Result<peer::SnapshotMessage, Status>>;

    async fn condition(&self, request: Request<peer::ConditionRequest>) -> Result<Response<peer::ConditionResponse>, Status> {
        self.check(&request)?;
        Ok(Response::new(self.core.condition_here()))
    }

    async fn digest(&self, request: Request<peer::DigestRequest>) -> Result<Response<peer::DigestResponse>, Status> {
        self.check(&request)?;
        Ok(Response::new(self.core.digest_here(request.into_inner()).await.map_err(status)?))
    }

    async fn diverged(&self, request: Request<peer::DivergedRequest>) -> Result<Response<peer::Blank>, Status> {
        let from = self.check(&request)?;
        self.core.diverged_here(from, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(peer::Blank {}))
    }

    async fn fetch_snapshot(&self, request: Request<peer::FetchSnapshotRequest>) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let from = self.check(&request)?;
        let at_least = request.into_inner().at_least_index;
        let snapshot = self.core.snapshot_here(at_least).await.map_err(status)?;
        tracing::info!(from, snapshot = ?snapshot.manifest().last_log_id, "a member fetches a snapshot");
        let vote = vote_to_proto(&crate::types::Vote::new(0, 0));
        Ok(Response::new(snapshot_messages(vote, snapshot).map(Ok).boxed()))
    }

    async fn change_member(&self, request: Request<peer::ChangeMemberRequest>) -> Result<Response<peer::ChangeMemberResponse>, Status> {
        let from = self.check(&request)?;
        let request = request.into_inner();
        if let Some(peer::change_member_request::Change::Update(record)) = &request.change
            && record.id == from
        {
            self.core.directory.hint(from, record.addresses.clone().unwrap_or_default());
        }
        Ok(Response::new(self.core.change_member_here(request).await))
    }
}

fn append_from_proto(message: peer::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, StoreError> {
    Ok(AppendEntriesRequest {
        vote: require_vote(message.vote.as_ref())?,
        prev_log_id: message.prev_log_id.as_ref().map(log_id_from_proto),
        entries: message.entries.into_iter().map(entry_from_proto).collect::<Result<_, _>>()?,
        leader_commit: message.leader_commit.as_ref().map(log_id_from_proto),
    })
}

fn append_response(result: openraft::raft::StreamAppendResult<TypeConfig>) -> peer::AppendResponse {
    use peer::append_response::Result as Answer;
    let result = match result {
        Ok(last) => Answer::Accepted(peer::Accepted { last_log_id: last.as_ref().map(log_id_to_proto) }),
        Err(StreamAppendError::Conflict(at)) => Answer::Conflict(log_id_to_proto(&at)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(vote_to_proto(&vote)),
    };
    peer::AppendResponse { result: Some(result) }
}

fn vote_request(request: peer::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    Ok(VoteRequest {
        vote: require_vote(request.vote.as_ref()).map_err(status)?,
        last_log_id: request.last_log_id.as_ref().map(log_id_from_proto),
        leadership_transfer: request.leadership_transfer,
    })
}

fn vote_response(answer: &openraft::raft::VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to_proto(&answer.vote)),
        granted: answer.vote_granted,
        last_log_id: answer.last_log_id.as_ref().map(log_id_to_proto),
    }
}

fn status(error: StoreError) -> Status {
    match error {
        StoreError::Invalid(text) => Status::invalid_argument(text),
        error => Status::unavailable(error.to_string()),
    }
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}
