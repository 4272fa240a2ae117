//! What all parts of a store share: identity, state, the current Raft instance, and the ways to the leader.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_proto::peer::proposed::Result as Proposed;
use trireme_proto::store::command::Body;
use trireme_proto::{peer, store};

use super::command;
use super::datadir::DataDir;
use super::forward::{Forwarder, proposed, unknown};
use super::options::Timing;
use super::read_batch::ReadBatcher;
use super::space::Space;
use super::status::{Contact, StoreStatus, leader_changed};
use crate::Fence;
use crate::backup::Origin;
use crate::engine::Engine;
use crate::error::StoreError;
use crate::log::LogSizes;
use crate::metrics::StoreMetrics;
use crate::mvcc::{StateMachine, into_outcome};
use crate::network::client::{Lane, PeerClients};
use crate::network::directory::PeerDirectory;
use crate::node::RaftNode;
use crate::node::machine::MachineShared;
use crate::types::Proposal;

/// Before a refused proposal is tried again, where no new leader shows up before; doubled up to the greatest. A new leader
/// refuses until it has heard from a quorum, which takes a round trip.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Shared by the handle, the peer service and the store's tasks.
pub(crate) struct Core {
    pub(crate) cluster_id: u64,
    pub(crate) node_id: u64,
    pub(crate) timing: Timing,
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) directory: Arc<PeerDirectory>,
    pub(crate) clients: Arc<PeerClients>,
    pub(crate) contact: Contact,
    pub(crate) state: StateMachine,
    pub(crate) machine: Arc<MachineShared>,
    pub(crate) metrics: Arc<StoreMetrics>,
    pub(crate) status: watch::Sender<StoreStatus>,
    /// The leader, as in the status. The status changes with every entry; this wakes only tasks that wait for another leader.
    pub(crate) leader: watch::Sender<Option<u64>>,
    /// ReadIndex requests of this member to the leader.
    pub(crate) reads: ReadBatcher,
    /// ReadIndex requests that this member confirms as the leader, its own and the others'.
    pub(crate) leader_reads: ReadBatcher,
    pub(crate) forwarder: Forwarder,
    pub(crate) space: Space,
    /// The running instance's log, to look after its space.
    pub(crate) log_engine: parking_lot::Mutex<Weak<dyn Engine>>,
    /// How large the parts of its log are.
    pub(crate) log_sizes: parking_lot::Mutex<Arc<parking_lot::Mutex<LogSizes>>>,
    pub(crate) raft: RwLock<Option<RaftNode>>,
    /// Held while this member, as the leader, changes the configuration.
    pub(crate) membership: tokio::sync::Mutex<()>,
    /// How this member is named in its backups.
    pub(crate) origin: RwLock<Origin>,
    pub(crate) cancel: CancellationToken,
}

// === impl Core ===

impl Core {
    /// The running instance.
    pub(crate) fn raft(&self) -> Result<RaftNode, StoreError> {
        let raft = self.raft.read().clone();
        raft.ok_or_else(|| match self.cancel.is_cancelled() {
            true => StoreError::Shutdown,
            false => StoreError::NoLeader("raft is not running on this member".into()),
        })
    }

    /// Whether this member knows that the cluster has removed it.
    pub(crate) fn is_removed(&self) -> bool {
        *self.clients.removed().borrow()
    }

    /// Refuses a command that not every member of the cluster supports yet.
    fn require_level(&self, needed: u32) -> Result<(), StoreError> {
        let level = self.state.feature_level();
        if needed <= level {
            return Ok(());
        }
        let text = format!("the cluster is at feature level {level} and this needs {needed}: update all its members first");
        Err(StoreError::Invalid(text))
    }

    /// The leader; waits for one until `deadline`.
    pub(crate) async fn leader(&self, deadline: Instant) -> Result<u64, StoreError> {
        if let Some(leader) = *self.leader.borrow() {
            return Ok(leader);
        }
        if self.is_removed() {
            return Err(StoreError::NoLeader("this member was removed from the cluster".into()));
        }
        let mut leader = self.leader.subscribe();
        let found = async {
            let leader = leader.wait_for(Option::is_some).await.map_err(|_| StoreError::Shutdown)?;
            (*leader).ok_or(StoreError::Shutdown)
        };
        tokio::select! {
            () = self.cancel.cancelled() => Err(StoreError::Shutdown),
            found = tokio::time::timeout_at(deadline, found) => {
                found.unwrap_or_else(|_| Err(StoreError::NoLeader("no leader was elected in time".into())))
            }
        }
    }

    /// Proposes a command of the store's own.
    pub(crate) async fn submit(&self, body: Body) -> Result<store::CommandResult, StoreError> {
        self.submit_fenced(body, None).await
    }

    /// Proposes a command; its failure, if it is one, as an error.
    pub(crate) async fn submit_fenced(&self, body: Body, fence: Option<Fence>) -> Result<store::CommandResult, StoreError> {
        let needed = command::level_of(&body);
        if needed > command::FIRST_LEVEL {
            self.require_level(needed)?;
        }
        let applied_index = self.machine.applied().at().index;
        let (encoded, proposal_id) = command::encode(body, fence, applied_index, self.state.feature_level());
        let proposed = {
            let _pending = self.metrics.pending();
            self.propose(encoded, proposal_id).await
        };
        if proposed.is_err() {
            self.metrics.proposals_failed.fetch_add(1, Ordering::Relaxed);
        }
        let (result, in_doubt) = proposed?;
        match into_outcome(result) {
            // Too late to tell whether an attempt before this one was applied.
            Err(StoreError::ProposalExpired) if in_doubt => {
                Err(StoreError::OutcomeUnknown { proposal_id, reason: "the proposal came too late".into() })
            }
            // This member is far behind the leader; nothing was written.
            Err(StoreError::ProposalExpired) => Err(StoreError::NoLeader("this member lags behind the leader".into())),
            outcome => outcome,
        }
    }

    /// Returns when another member than `leader` leads.
    async fn leader_moved(&self, leader: u64) {
        leader_changed(self.leader.subscribe(), leader).await;
    }

    /// Proposes an encoded command, wherever the leader is, and waits until it is applied here too.
    ///
    /// The command carries `proposal_id`, which apply remembers: sending it again after an unknown outcome is
    /// safe, and is done until the deadline. Says with the result whether an earlier attempt was in doubt.
    async fn propose(&self, command: Bytes, proposal_id: u128) -> Result<(store::CommandResult, bool), StoreError> {
        let deadline = Instant::now() + self.timing.request;
        // Whether an earlier attempt may have been appended.
        let mut in_doubt: Option<String> = None;
        let mut pause = RETRY_PAUSE_MIN;
        let give_up = |in_doubt: Option<String>, error: StoreError| match in_doubt {
            Some(reason) => StoreError::OutcomeUnknown { proposal_id, reason },
            None => error,
        };
        loop {
            if self.cancel.is_cancelled() {
                return Err(give_up(in_doubt, StoreError::Shutdown));
            }
            let leader = match self.leader(deadline).await {
                Ok(leader) => leader,
                Err(error) => return Err(give_up(in_doubt, error)),
            };
            let attempt = async {
                match leader == self.node_id {
                    true => Ok(self.propose_here(command.clone()).await),
                    false => self.forwarder.propose(leader, command.clone()).await,
                }
            };
            let answer = tokio::select! {
                () = self.cancel.cancelled() => return Err(give_up(Some("the store was shut down".into()), StoreError::Shutdown)),
                answer = tokio::time::timeout_at(deadline, attempt) => answer,
                // A leader that vanished may never answer; its successor knows the id, if it was appended.
                () = self.leader_moved(leader) => Ok(Ok(unknown())),
            };
            match answer {
                Err(_) => {
                    let reason = in_doubt.unwrap_or_else(|| "no answer in time".into());
                    return Err(StoreError::OutcomeUnknown { proposal_id, reason });
                }
                Ok(Err(error)) => return Err(give_up(in_doubt, error)),
                Ok(Ok(peer::Proposed { result: Some(Proposed::Applied(applied)) })) => {
                    self.wait_applied(applied.index, deadline).await.map_err(|error| StoreError::OutcomeUnknown {
                        proposal_id,
                        reason: format!("applied by the leader, not yet here: {error}"),
                    })?;
                    return Ok((applied.result.unwrap_or_default(), in_doubt.is_some()));
                }
                Ok(Ok(peer::Proposed { result: Some(Proposed::Refused(refused)) })) => {
                    tracing::debug!(leader, reason = %refused.reason, "proposal refused before append");
                }
                Ok(Ok(peer::Proposed { result: Some(Proposed::NoSpace(reason)) })) => {
                    tracing::debug!(leader, reason, "proposal refused for want of space");
                    return Err(give_up(in_doubt, StoreError::NoSpace));
                }
                Ok(Ok(_)) => in_doubt = Some(format!("contact with leader {leader} was lost")),
            }
            if Instant::now() + pause >= deadline {
                return Err(give_up(in_doubt, StoreError::NoLeader("no leader accepted the proposal in time".into())));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_PAUSE_MAX),
                () = self.leader_moved(leader) => pause = RETRY_PAUSE_MIN,
            }
        }
    }

    /// Proposes to this member's own Raft.
    pub(crate) async fn propose_here(&self, command: Bytes) -> peer::Proposed {
        let refused = |leader_id: Option<u64>, reason: String| {
            proposed(Proposed::Refused(peer::Refused { leader_id: leader_id.unwrap_or(0), reason }))
        };
        let raft = match self.raft() {
            Ok(raft) => raft,
            Err(error) => return refused(None, error.to_string()),
        };
        if let Err(reason) = self.space.admit(&command, &self.state) {
            return proposed(Proposed::NoSpace(reason));
        }
        match raft.client_write(Proposal(command)).await {
            Ok(response) => proposed(Proposed::Applied(peer::Applied { index: response.log_id.index(), result: Some(response.data) })),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => refused(to.leader_id, to.to_string()),
            // Everything else may have been appended.
            Err(error) => {
                tracing::debug!(%error, "a proposal was lost sight of");
                unknown()
            }
        }
    }

    /// The index up to which a read that begins now must have applied; from the leader, wherever it is.
    pub(crate) async fn read_index(&self) -> Result<u64, StoreError> {
        let deadline = Instant::now() + self.timing.request;
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let leader = self.leader(deadline).await?;
            let attempt = async {
                match leader == self.node_id {
                    true => self.read_index_here().await,
                    false => self.reads.join().await,
                }
            };
            let answer = tokio::select! {
                answer = attempt => answer,
                () = self.leader_moved(leader) => continue,
            };
            match answer {
                Ok(index) => return Ok(index),
                Err(StoreError::Shutdown) => return Err(StoreError::Shutdown),
                Err(error) if Instant::now() + pause >= deadline => return Err(error),
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    /// As the leader, in a round trip shared with all concurrent requests.
    pub(crate) async fn read_index_here(&self) -> Result<u64, StoreError> {
        self.leader_reads.join().await
    }

    /// Asks the leader once, for all local requests that wait.
    pub(crate) async fn read_index_there(&self) -> Result<u64, StoreError> {
        use peer::read_index_response::Result as Answer;
        let leader = *self.leader.borrow();
        let leader =
            leader.filter(|leader| *leader != self.node_id).ok_or_else(|| StoreError::NoLeader("the leader has changed".into()))?;
        let mut client = self.clients.client(leader, Lane::Bulk)?;
        let call = client.read_index(peer::ReadIndexRequest {});
        let response = tokio::select! {
            // The next round asks the one that leads now.
            () = self.leader_moved(leader) => return Err(StoreError::NoLeader("the leader has changed".into())),
            response = tokio::time::timeout(self.timing.rpc, call) => response
                .map_err(|_| StoreError::NoLeader(format!("leader {leader} does not answer")))?
                .map_err(|status| StoreError::NoLeader(format!("leader {leader}: {}", status.message())))?,
        };
        match response.into_inner().result {
            Some(Answer::Index(index)) => Ok(index),
            Some(Answer::Refused(refused)) => Err(StoreError::NoLeader(refused.reason)),
            None => Err(StoreError::NoLeader("answer without a result".into())),
        }
    }

    /// One ReadIndex round of the leader: it asks a quorum whether it still leads. No clock is trusted (D3).
    pub(crate) async fn confirm_leadership(&self) -> Result<u64, StoreError> {
        let raft = self.raft()?;
        if crate::mutant::on("stale-read") && raft.is_leader() {
            return Ok(self.machine.applied().at().index);
        }
        let _reading = self.clients.read();
        let round = raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.timing.rpc, round).await {
            Ok(Ok((read_log_id, _applied))) => Ok(read_log_id.index()),
            Ok(Err(error)) => Err(StoreError::NoLeader(error.to_string())),
            Err(_) => Err(StoreError::NoLeader("no quorum answered in time".into())),
        }
    }

    /// Waits until the local state has applied `index`.
    pub(crate) async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<(), StoreError> {
        let applied = self.machine.applied();
        if applied.at().index >= index {
            return Ok(());
        }
        tokio::select! {
            () = self.cancel.cancelled() => Err(StoreError::Shutdown),
            reached = tokio::time::timeout_at(deadline, applied.wait(index)) => {
                reached.map_err(|_| StoreError::NoLeader(format!("entry {index} was not applied here in time")))
            }
        }
    }

    /// Makes a new condition known.
    pub(crate) fn publish(&self, next: StoreStatus) {
        let leader = next.leader.as_ref().map(|leader| leader.node_id);
        self.status.send_if_modified(|status| {
            // A Raft instance that has ended no longer changes the status.
            let modified = *status != next && self.raft.read().is_some();
            if modified {
                *status = next;
                self.leader.send_if_modified(|now| std::mem::replace(now, leader) != leader);
            }
            modified
        });
    }
}
