//! What runs around Raft for as long as the store is open.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::mpsc;
use tokio::time::Instant;
use trireme_proto::store;
use trireme_proto::store::command::Body;
use trireme_proto::store::command_result::Result as Outcome;

use super::compare::compare_replicas;
use super::core::Core;
use super::forward::{self, PendingProposal};
use super::instance::{Instance, removed};
use super::log_upkeep::keep_log;
use super::lost_leader;
use super::options::Upkeep;
use super::read_batch::PendingReads;
use super::status::{LeaderInfo, Leadership, Role, StoreStatus};
use super::supervise::supervise;
use super::upkeep::{keep_space, remove_history, retain};
use crate::Fence;
use crate::blocking::blocking;
use crate::error::StoreError;
use crate::log::LogStore;
use crate::network::listener::PeerKey;
use crate::node;
use crate::types::unplaced;

/// How often the leader looks for expired leases at least.
const LEASE_PERIOD: Duration = Duration::from_millis(500);
/// Progress of apply alone is published at most this often: under load it would change the status, and wake all its subscribers,
/// a thousand times a second.
const PROGRESS_PERIOD: Duration = Duration::from_millis(20);
/// Remaining times are persisted when they have fallen by this.
const LEASE_CHECKPOINT_STEP: Duration = Duration::from_secs(300);

/// What the tasks need besides the core.
pub(super) struct TaskParts {
    pub(super) reads: PendingReads,
    pub(super) leader_reads: PendingReads,
    pub(super) proposals: mpsc::Receiver<PendingProposal>,
    pub(super) lost: mpsc::Receiver<PeerKey>,
    pub(super) instance: Instance,
    pub(super) own_record: store::MemberRecord,
    pub(super) founder: bool,
    pub(super) upkeep: Upkeep,
}

/// Starts all tasks on the current runtime.
pub(super) fn spawn(core: Arc<Core>, parts: TaskParts, log: Option<LogStore>) {
    let TaskParts { reads, leader_reads, proposals, lost, instance, own_record, founder, upkeep } = parts;
    tokio::spawn(forward::run(core.clients.clone(), proposals, core.leader.subscribe(), core.timing.request));
    until_cancelled(&core, |core| lost_leader::watch(core, lost));
    until_cancelled(&core, |core| reads.run(move || read_round(core.clone())));
    until_cancelled(&core, |core| leader_reads.run(move || leader_round(core.clone())));
    if let Some(log) = log.clone() {
        until_cancelled(&core, |core| note_start(core, log));
    }
    until_cancelled(&core, |core| supervise(core, instance, log));
    until_cancelled(&core, watch_status);
    until_cancelled(&core, count_leaders);
    until_cancelled(&core, run_leases);
    until_cancelled(&core, remove_history);
    until_cancelled(&core, move |core| keep_space(core, upkeep));
    until_cancelled(&core, move |core| keep_log(core, upkeep));
    until_cancelled(&core, move |core| retain(core, upkeep));
    until_cancelled(&core, move |core| compare_replicas(core, upkeep.compare_every));
    until_cancelled(&core, |core| async move { core.promote_learners().await });
    until_cancelled(&core, move |core| record_self(core, own_record, founder));
    until_cancelled(&core, raise_feature_level);
    until_cancelled(&core, heed_removal);
}

fn until_cancelled<F: Future<Output = ()> + Send + 'static>(core: &Arc<Core>, task: impl FnOnce(Arc<Core>) -> F) {
    let cancel = core.cancel.clone();
    let task = task(core.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = task => {}
        }
    });
}

async fn read_round(core: Arc<Core>) -> Result<u64, StoreError> {
    core.read_index_there().await
}

async fn leader_round(core: Arc<Core>) -> Result<u64, StoreError> {
    core.confirm_leadership().await
}

/// Once there is a vote or an entry, an empty log means that it was lost.
async fn note_start(core: Arc<Core>, log: LogStore) {
    while log.is_pristine() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(log);
    let data_dir = core.data_dir.clone();
    if let Err(error) = blocking(move || data_dir.mark_started()).await.and_then(|written| written) {
        tracing::error!(%error, "the member file cannot be written");
    }
}

/// Keeps [`StoreStatus`] and the peer directory in step with Raft.
async fn watch_status(core: Arc<Core>) {
    let mut applied = core.machine.applied().subscribe();
    // Loss of contact causes no event, so the status is also computed periodically.
    let mut period = tokio::time::interval((core.timing.election_max / 2).max(Duration::from_millis(20)));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok(raft) = core.raft() else {
            period.tick().await;
            continue;
        };
        // One receiver for the whole instance: a new one would report everything as changed at once. Server metrics only: the others
        // change with every heartbeat, and are read once in a period.
        let mut metrics = raft.server_metrics();
        while core.raft.read().is_some() {
            let next = observe(&core, &raft);
            let behind = next.leadership.is_some_and(|leadership| !leadership.caught_up);
            let progress_from = Instant::now() + if behind { Duration::ZERO } else { PROGRESS_PERIOD };
            // A single voter sends no heartbeats and holds no elections: no clock is needed.
            let alone = leads_alone(&core, &raft);
            raft.runtime_config().tick(!alone);
            core.publish(next);
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break },
                changed = async {
                    applied.changed().await?;
                    tokio::time::sleep_until(progress_from).await;
                    Ok::<(), tokio::sync::watch::error::RecvError>(())
                } => if changed.is_err() { break },
                _ = period.tick(), if !alone => {}
            }
        }
        period.tick().await;
    }
}

/// Counts for metrics how often another leader was seen.
async fn count_leaders(core: Arc<Core>) {
    let mut status = core.status.subscribe();
    let mut known = None;
    let leader = |status: &StoreStatus| status.leader.as_ref().map(|leader| leader.node_id);
    loop {
        let Ok(now) = status.wait_for(|status| leader(status).is_some() && leader(status) != known).await else { return };
        known = leader(&now);
        core.metrics.leader_changes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether this member leads and the configuration names no other, not even a learner.
fn leads_alone(core: &Core, raft: &node::RaftNode) -> bool {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let mut members = metrics.membership_config.nodes().map(|(id, _)| *id);
    metrics.state == ServerState::Leader && members.next() == Some(core.node_id) && members.next().is_none()
}

fn observe(core: &Core, raft: &node::RaftNode) -> StoreStatus {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    core.directory.update(metrics.membership_config.membership());
    let applied = core.machine.applied().at();
    let role = match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    };
    let term = metrics.current_term;
    let leads = role == Role::Leader && metrics.current_leader == Some(core.node_id);
    let leader = metrics.current_leader.map(|node_id| {
        let record = core.directory.get(node_id).unwrap_or_default();
        let addresses = record.addresses.unwrap_or_default();
        LeaderInfo {
            node_id,
            term,
            peer_address: addresses.peer.into_iter().next().unwrap_or_default(),
            name: record.name,
            api_urls: addresses.api,
        }
    });
    let limit = core.timing.election_max;
    let has_quorum_contact = match (leads, metrics.current_leader) {
        (true, _) => {
            let alone = metrics.membership_config.voter_ids().count() == 1;
            alone || metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < limit)
        }
        (false, Some(leader)) => core.contact.within(leader, limit),
        (false, None) => false,
    };
    StoreStatus {
        node_id: core.node_id,
        cluster_id: core.cluster_id,
        role,
        term,
        leader,
        applied_index: applied.index,
        committed_index: metrics.local_committed.map_or(0, |id| id.index()),
        has_quorum_contact,
        leadership: leads.then_some(Leadership {
            fence: Fence { term, node_id: core.node_id },
            // The first entry of a term is its leader's own: a state that has applied any entry of the term has passed it.
            caught_up: applied.term == term,
        }),
        voters: metrics.membership_config.voter_ids().collect(),
        changing_members: metrics.membership_config.get_joint_config().len() > 1
            || metrics.membership_config.log_id() != metrics.committed_membership_config.log_id(),
        failure: core.clients.outcast().filter(|_| !has_quorum_contact),
    }
}

/// While this member leads: restarts the leases' clocks, then revokes what runs out. Sleeps while there is no lease.
async fn run_leases(core: Arc<Core>) {
    let mut clocks_of_term = 0;
    let mut status = core.status.subscribe();
    loop {
        let now = Instant::now();
        match core.state.next_lease_deadline().map(Instant::from_std) {
            Some(next) => tokio::time::sleep_until(next.clamp(now + Duration::from_millis(50), now + LEASE_PERIOD)).await,
            // A grant is an entry, and so is the beginning of a leadership: both change the status.
            None if status.changed().await.is_err() => return,
            None => {}
        }
        let leadership = core.status.borrow().leadership.filter(|leadership| leadership.caught_up);
        let Some(leadership) = leadership else { continue };
        let now = Instant::now().into_std();
        if clocks_of_term != leadership.fence.term {
            // A new leader gives every lease its remaining time again: longer than promised, never shorter.
            match core.state.restart_leases(now) {
                Ok(()) => clocks_of_term = leadership.fence.term,
                Err(error) => tracing::warn!(%error, "the leases' clocks cannot be started"),
            }
            continue;
        }
        for lease in core.state.expired_leases(now) {
            let revoke = store::LeaseRevokeCommand { id: lease.id, if_generation: lease.generation };
            match core.submit(Body::LeaseRevoke(revoke)).await {
                Ok(_) | Err(StoreError::LeaseNotFound(_) | StoreError::Conflict(_)) => {}
                Err(error) => tracing::debug!(lease = lease.id, %error, "an expired lease is not revoked yet"),
            }
        }
        let checkpoint = core.state.lease_checkpoints(now, LEASE_CHECKPOINT_STEP);
        if !checkpoint.leases.is_empty()
            && let Err(error) = core.submit(Body::LeaseCheckpoint(checkpoint)).await
        {
            tracing::debug!(%error, "remaining lease times were not noted");
        }
    }
}

/// While this member leads: lets the cluster use what all its members know. Done for good when that is all that this release knows.
async fn raise_feature_level(core: Arc<Core>) {
    const PAUSE: Duration = Duration::from_secs(1);
    let mut status = core.status.subscribe();
    while core.state.info().feature_level < store::FEATURE_LEVEL {
        let leads = core.status.borrow().leadership.is_some_and(|leadership| leadership.caught_up);
        // The records, as apply will look at them; a member without one has not reported.
        let known = core.state.members().map(|members| members.iter().map(|member| member.feature_level).min());
        if let (true, Ok(Some(known))) = (leads, known)
            && known > core.state.info().feature_level
        {
            let level = known.min(store::FEATURE_LEVEL);
            match core.submit(Body::FeatureLevelRaise(store::FeatureLevelCommand { level })).await {
                Ok(_) => tracing::info!(level, "every member knows this feature level: the cluster uses it"),
                Err(error) => tracing::debug!(level, %error, "the feature level is not raised yet"),
            }
        }
        // A member's record and a leadership come by the log, and so change the status.
        if status.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A member that was removed stops asking for votes, and says why, here and at its next start. What it has can still be read.
async fn heed_removal(core: Arc<Core>) {
    if core.clients.removed().wait_for(|removed| *removed).await.is_err() {
        return;
    }
    let text = removed(core.node_id, &core.data_dir);
    tracing::error!("{text}");
    let data_dir = core.data_dir.clone();
    match blocking(move || data_dir.mark_removed()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the member file cannot be written"),
        Err(error) => tracing::error!(%error, "the member file cannot be written"),
    }
    let raft = core.raft.write().take();
    core.status.send_modify(|status| {
        status.failure = Some(text.as_str().into());
        status.role = Role::Stopped;
        (status.leader, status.leadership, status.has_quorum_contact) = (None, None, false);
        core.leader.send_replace(None);
    });
    if let Some(raft) = raft
        && let Err(error) = raft.shutdown().await
    {
        tracing::debug!(%error, "raft did not stop in order");
    }
}

/// Names the cluster and records the founder; afterwards keeps this member's own record true.
async fn record_self(core: Arc<Core>, own: store::MemberRecord, founder: bool) {
    const PAUSE: Duration = Duration::from_millis(100);
    while !core.is_removed() {
        let done = match founder && core.state.info().cluster_id == 0 {
            true => found(&core, &own).await,
            false => correct(&core, &own).await,
        };
        match done {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "this member is not recorded yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn found(core: &Core, own: &store::MemberRecord) -> Result<bool, StoreError> {
    if core.status.borrow().leadership.is_none() {
        return Ok(false);
    }
    let allocate = Body::MemberAllocate(store::MemberAllocateCommand { record: Some(own.clone()) });
    match core.submit(allocate).await?.result {
        // Invariant: ids come from the log, and the founder's is the first.
        Some(Outcome::Member(record)) if record.id == core.node_id => {}
        other => return Err(StoreError::Corrupt(format!("the founder was recorded as {other:?}"))),
    }
    core.submit(Body::ClusterInit(store::ClusterInitCommand { cluster_id: core.cluster_id })).await?;
    Ok(true)
}

/// Updates addresses and versions in this member's record; the key stays. Returns true once the configuration matches.
async fn correct(core: &Core, own: &store::MemberRecord) -> Result<bool, StoreError> {
    let Some(recorded) = core.directory.get(core.node_id) else { return Ok(false) };
    let wanted = unplaced(store::MemberRecord { revision: recorded.revision, ..own.clone() });
    // A record without a key was made by a restore or a reset; the member that starts on it fills it in.
    let vacant = recorded.spki.is_empty();
    if recorded == wanted || (recorded.spki != own.spki && !vacant) {
        return Ok(true);
    }
    let update = store::MemberRecord { id: core.node_id, ..wanted };
    core.announce(update).await.map(|()| true)
}
