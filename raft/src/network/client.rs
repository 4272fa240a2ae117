//! Connections to the other members, and openraft's network on top of them.
//!
//! One connection per peer for consensus and one for bulk (snapshots, forwarded proposals), so that a large
//! transfer cannot delay a heartbeat. Connections are made lazily and repaired by tonic; a changed address or
//! key in membership makes a new one. Every call has a deadline.

// The size of these errors is openraft's choice.
#![allow(clippy::result_large_err)]

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use openraft::base::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tonic::transport::Endpoint;
use trireme_proto::peer::peer_client::PeerClient;
use trireme_proto::{peer, store};

use super::append::{AppendPipe, Exchange, Waiting};
use super::directory::PeerDirectory;
use super::interest::Interest;
use super::rpc::{Headers, Rpc, malformed, rpc_error};
use super::send::snapshot_messages;
use super::tls::PeerIdentity;
use super::transport::Transport;
use super::{CLUSTER_HEADER, MAX_MESSAGE_BYTES, REMOVED_HEADER};
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::snapshot::SnapshotDir;
use crate::types::{TypeConfig, Vote, log_id_from_proto, log_id_to_proto, require_vote, vote_from_proto, vote_to_proto};

pub(crate) use super::rpc::{Client, never_sent};

/// Pause after the first append stream that could not be opened. It doubles with each failure, up to sixteen times this.
const FIRST_PAUSE: Duration = Duration::from_millis(40);

/// Which of a peer's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Votes, heartbeats, log.
    Consensus,
    /// Calls that transfer much data or may take long.
    Bulk,
}

/// All connections of this member.
pub(crate) struct PeerClients {
    self_id: u64,
    cluster_id: u64,
    identity: Arc<PeerIdentity>,
    transport: Arc<dyn Transport>,
    directory: Arc<PeerDirectory>,
    connect_timeout: Duration,
    append_timeout: Duration,
    metrics: Arc<StoreMetrics>,
    pool: Mutex<HashMap<(u64, Lane), Pooled>>,
    /// The message for the log, once a member has answered that it belongs to another cluster now.
    outcast: Mutex<Option<Arc<str>>>,
    removed: watch::Sender<bool>,
    interests: Mutex<HashMap<u64, Arc<Interest>>>,
    /// Whether a read of this member, as the leader, waits for its followers.
    reading: watch::Sender<bool>,
}

/// While it lives, requests that carry nothing go to followers at once.
pub(crate) struct Reading<'a>(&'a watch::Sender<bool>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

struct Pooled {
    record: store::MemberRecord,
    client: Client,
}

/// openraft's factory.
#[derive(Clone)]
pub(crate) struct PeerNetwork {
    pub(crate) clients: Arc<PeerClients>,
    /// Where this member's log ends.
    pub(crate) log_end: watch::Receiver<Option<u64>>,
}

/// openraft's connection to one member.
pub(crate) struct PeerLink {
    clients: Arc<PeerClients>,
    target: u64,
    /// As openraft's membership has it; the directory may learn of a new member a moment later.
    record: store::MemberRecord,
    /// Append streams in a row that could not be opened.
    failures: u32,
    /// Between two uses.
    pipe: Option<AppendPipe>,
    log_end: watch::Receiver<Option<u64>>,
}

// === impl PeerClients ===

impl PeerClients {
    pub(crate) fn new(
        self_id: u64,
        cluster_id: u64,
        identity: Arc<PeerIdentity>,
        transport: Arc<dyn Transport>,
        directory: Arc<PeerDirectory>,
        connect_timeout: Duration,
        append_timeout: Duration,
        metrics: Arc<StoreMetrics>,
    ) -> PeerClients {
        let pool = Mutex::new(HashMap::new());
        let outcast = Mutex::new(None);
        let removed = watch::Sender::new(false);
        PeerClients {
            self_id,
            cluster_id,
            identity,
            transport,
            directory,
            connect_timeout,
            append_timeout,
            metrics,
            pool,
            outcast,
            removed,
            interests: Mutex::default(),
            reading: watch::Sender::new(false),
        }
    }

    /// Set when a member of this cluster now belongs to another one: a reset or a restore has left this member behind.
    pub(crate) fn outcast(&self) -> Option<Arc<str>> {
        self.outcast.lock().clone()
    }

    /// Records that a member belongs to another cluster now. Its key was checked on connecting.
    fn note_refusal(&self, target: u64, status: &tonic::Status) {
        let theirs = status.metadata().get(CLUSTER_HEADER).and_then(|value| value.to_str().ok());
        let Some(theirs) = theirs.and_then(|text| u64::from_str_radix(text, 16).ok()) else { return };
        let mut outcast = self.outcast.lock();
        if outcast.is_none() {
            let name = self.directory.get(target).map_or_else(|| target.to_string(), |record| record.name);
            let told = format!(
                "member {name} belongs to cluster {theirs:016x} now, which was reset or restored without this server, a member of {:016x}; stop this server, empty its data directory and let it join again with --server and the token",
                self.cluster_id
            );
            tracing::error!("{told}");
            *outcast = Some(told.into());
        }
    }

    /// Whether a member waits for what is committed here.
    pub(crate) fn interest(&self, member: u64) -> Arc<Interest> {
        self.interests.lock().entry(member).or_default().clone()
    }

    /// A read begins that followers have to confirm. There is one at a time.
    pub(crate) fn read(&self) -> Reading<'_> {
        self.reading.send_replace(true);
        Reading(&self.reading)
    }

    /// Becomes true when a peer says that this member was removed.
    pub(crate) fn removed(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// Records a refusal that says so. It comes from committed state, over a connection whose key is a member's.
    pub(crate) fn heed(&self, refusal: &tonic::Status) {
        let removed = refusal.metadata().get(REMOVED_HEADER).and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
        if removed == Some(self.self_id) {
            self.removed.send_replace(true);
        }
    }

    /// The client for `target`, connected or about to be. Must run inside a runtime.
    pub(crate) fn client(&self, target: u64, lane: Lane) -> Result<Client, StoreError> {
        let record =
            self.directory.reach(target).ok_or_else(|| StoreError::NoLeader(format!("member {target} is not in the membership")))?;
        self.client_for(target, record, lane)
    }

    fn client_for(&self, target: u64, record: store::MemberRecord, lane: Lane) -> Result<Client, StoreError> {
        let mut pool = self.pool.lock();
        if let Some(pooled) = pool.get(&(target, lane)).filter(|pooled| pooled.record == record) {
            return Ok(pooled.client.clone());
        }
        let client = self.connect(target, &record)?;
        pool.insert((target, lane), Pooled { record, client: client.clone() });
        Ok(client)
    }

    /// Opens a connection to `target` and closes it: tells whether a process listens there.
    pub(crate) async fn probe(&self, target: u64) -> std::io::Result<()> {
        let record = self.directory.reach(target).unwrap_or_default();
        let address = peer_address(target, &record)?;
        self.transport.connect(address).await.map(drop)
    }

    fn connect(&self, target: u64, record: &store::MemberRecord) -> Result<Client, StoreError> {
        let address = peer_address(target, record)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.identity.client_config(record.spki.clone())?));
        // The scheme says http because the connector below does the TLS.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| StoreError::Invalid(format!("peer address {address}: {error}")))?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(8))
            .keep_alive_while_idle(true);
        let transport = self.transport.clone();
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let (connector, wire) = (connector.clone(), transport.connect(address.clone()));
            async move {
                let name = ServerName::try_from("trireme-peer").map_err(std::io::Error::other)?;
                connector.connect(name, wire.await?).await.map(TokioIo::new)
            }
        }));
        let headers = Headers::new(self.cluster_id, self.self_id, target)?;
        Ok(PeerClient::with_interceptor(channel, headers)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

fn peer_address(target: u64, record: &store::MemberRecord) -> Result<String, StoreError> {
    let addresses = record.addresses.as_ref();
    let address = addresses.and_then(|addresses| addresses.peer.first()).cloned();
    address.ok_or_else(|| StoreError::NoLeader(format!("member {target} has no peer address")))
}

// === impl PeerNetwork ===

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, node: &store::MemberRecord) -> PeerLink {
        let (clients, log_end) = (self.clients.clone(), self.log_end.clone());
        PeerLink { clients, target, record: node.clone(), failures: 0, pipe: None, log_end }
    }
}

// === impl PeerLink ===

impl PeerLink {
    fn reach(&self) -> store::MemberRecord {
        self.clients.directory.reach(self.target).unwrap_or_else(|| self.record.clone())
    }

    fn client(&self, lane: Lane) -> Result<Client, Rpc> {
        let client = self.clients.client_for(self.target, self.reach(), lane);
        client.map_err(|error| RPCError::Unreachable(Unreachable::from_string(error)))
    }

    async fn open_pipe(&mut self, record: store::MemberRecord, limit: Duration) -> Result<AppendPipe, Rpc> {
        let client = self.client(Lane::Consensus)?;
        let opened = match tokio::time::timeout(limit, AppendPipe::open(client, record, self.clients.metrics.round_trip(self.target))).await
        {
            Ok(opened) => opened.map_err(|status| rpc_error(&status)),
            Err(_) => {
                let (action, id) = (RPCTypes::AppendEntries, self.clients.self_id);
                Err(RPCError::Timeout(Timeout { action, id, target: self.target, timeout: limit }))
            }
        };
        match opened {
            Ok(_) => self.failures = 0,
            Err(_) => self.pause().await,
        }
        opened
    }

    /// openraft waits between attempts only where a request is taken from its stream. A stream that does not even
    /// open takes none, so the pause is made here.
    async fn pause(&mut self) {
        let pause = FIRST_PAUSE * (1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }

    async fn within<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Rpc> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                self.clients.note_refusal(self.target, &status);
                self.clients.heed(&status);
                Err(rpc_error(&status))
            }
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: self.clients.self_id, target: self.target, timeout: limit })),
        }
    }

    async fn ballot(&self, rpc: VoteRequest<TypeConfig>, limit: Duration, pre: bool) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let mut client = self.client(Lane::Consensus)?;
        let request = peer::VoteRequest {
            vote: Some(vote_to_proto(&rpc.vote)),
            last_log_id: rpc.last_log_id.as_ref().map(log_id_to_proto),
            leadership_transfer: rpc.leadership_transfer,
        };
        let response = match pre {
            true => self.within(RPCTypes::Vote, limit, client.pre_vote(request)).await?,
            false => self.within(RPCTypes::Vote, limit, client.vote(request)).await?,
        };
        Ok(VoteResponse {
            vote: require_vote(response.vote.as_ref()).map_err(malformed)?,
            vote_granted: response.granted,
            last_log_id: response.last_log_id.as_ref().map(log_id_from_proto),
        })
    }
}

impl RaftNetworkV2<TypeConfig> for PeerLink {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Rpc> {
        let input = futures::stream::iter([rpc]);
        let mut output = RaftNetworkV2::stream_append(self, input, option).await?;
        match output.next().await {
            Some(result) => Ok(result?.into()),
            None => Err(RPCError::Network(NetworkError::from_string("append stream ended without an answer"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            let record = self.reach();
            let limit = option.soft_ttl().max(self.clients.append_timeout);
            let pipe = match self.pipe.take().filter(|pipe| pipe.leads_to(&record)) {
                Some(pipe) => pipe,
                None => self.open_pipe(record, limit).await?,
            };
            let ends = (self.clients.self_id, self.target);
            let waiting = Waiting { interest: self.clients.interest(self.target), reading: self.clients.reading.subscribe() };
            Ok(Exchange::new(&mut self.pipe, pipe, input, limit, ends, self.log_end.clone(), waiting).answers().boxed())
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.ballot(rpc, option.soft_ttl(), false).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.ballot(rpc, option.soft_ttl(), true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client(Lane::Bulk)?;
        let bytes: u64 = snapshot.snapshot.manifest().files.iter().map(|file| file.size).sum();
        // A peer that takes less than a mebibyte a second counts as unreachable.
        let limit = Duration::from_secs(60 + bytes / (1 << 20));
        let messages = snapshot_messages(vote_to_proto(&vote), snapshot.snapshot);
        let call = self.within(RPCTypes::InstallSnapshot, limit, client.install_snapshot(messages));
        let response = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            response = call => response?,
        };
        let vote = require_vote(response.vote.as_ref()).map_err(|error| StreamingError::from(malformed(error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Rpc> {
        use peer::transfer_leader_response::Result as Answer;
        let mut client = self.client(Lane::Consensus)?;
        let request = peer::TransferLeaderRequest {
            from_leader: Some(vote_to_proto(req.from_leader())),
            to_node_id: *req.to_node_id(),
            last_log_id: req.last_log_id().map(log_id_to_proto),
        };
        let limit = option.soft_ttl().max(self.clients.append_timeout);
        let response = self.within(RPCTypes::TransferLeader, limit, client.transfer_leader(request)).await?;
        Ok(match response.result {
            Some(Answer::Accepted(_)) => Ok(()),
            Some(Answer::VoteChanged(actual)) => {
                Err(TransferLeaderError::VoteChanged { expected: *req.from_leader(), actual: vote_from_proto(&actual).map_err(malformed)? })
            }
            Some(Answer::NotFlushed(state)) => Err(TransferLeaderError::LogNotFlushed {
                expected: state.expected.as_ref().map(log_id_from_proto),
                actual: state.actual.as_ref().map(log_id_from_proto),
            }),
            None => return Err(malformed(StoreError::Invalid("answer without a result".into()))),
        })
    }
}
