//! Membership changes: adding, promoting and removing members, transferring leadership. Runs on the leader.
//!
//! Two records change together: the member's record in replicated state, which allocates its id and never
//! reuses one (design D8), and openraft's configuration, which says who votes. The record comes first when a
//! member is added and goes last when it is removed, so that no configured member is without a record.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use tokio::time::Instant;
use trireme_proto::peer::change_member_request::Change;
use trireme_proto::peer::change_member_response::Result as Answer;
use trireme_proto::store::command::Body;
use trireme_proto::store::command_result::Result as Outcome;
use trireme_proto::{peer, store};

use crate::error::StoreError;
use crate::network::client::Lane;
use crate::node::RaftNode;
use crate::store::core::Core;
use crate::store::status::leader_changed;
use crate::types::{TypeConfig, unplaced};

/// A learner that lacks no more than this many entries is ready to vote.
const PROMOTION_LAG: u64 = 64;
/// A member that acknowledged nothing for this long does not count for a quorum.
const ALIVE_WITHIN: Duration = Duration::from_secs(3);
/// How often the leader looks for learners that are ready.
const PROMOTION_PERIOD: Duration = Duration::from_millis(250);

impl Core {
    /// Sends a membership change to the leader; repeats it while it was refused before anything happened.
    pub(crate) async fn change(&self, change: Change) -> Result<peer::Changed, StoreError> {
        self.change_as(peer::ChangeMemberRequest { change: Some(change), force: false }).await
    }

    /// The same with the whole request: with `force` a member is removed even if the others lose their quorum.
    pub(crate) async fn change_as(&self, request: peer::ChangeMemberRequest) -> Result<peer::Changed, StoreError> {
        const PAUSE: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + self.timing.request * 2;
        loop {
            let leader = self.leader(deadline).await?;
            let request = request.clone();
            let response = if leader == self.node_id {
                self.change_member_here(request).await
            } else {
                let mut client = self.clients.client(leader, Lane::Bulk)?;
                match tokio::time::timeout_at(deadline, client.change_member(request)).await {
                    Ok(Ok(response)) => response.into_inner(),
                    Ok(Err(status)) => {
                        return Err(StoreError::OutcomeUnknown { proposal_id: 0, reason: status.to_string() });
                    }
                    Err(_) => {
                        return Err(StoreError::OutcomeUnknown { proposal_id: 0, reason: "no answer in time".into() });
                    }
                }
            };
            match response.result {
                Some(Answer::Changed(changed)) => return Ok(changed),
                Some(Answer::Invalid(text)) => return Err(StoreError::Invalid(text)),
                Some(Answer::Unknown(reason)) => return Err(StoreError::OutcomeUnknown { proposal_id: 0, reason }),
                Some(Answer::Refused(refused)) if Instant::now() + PAUSE >= deadline => {
                    return Err(StoreError::NoLeader(refused.reason));
                }
                Some(Answer::Refused(_)) => tokio::time::sleep(PAUSE).await,
                None => return Err(StoreError::OutcomeUnknown { proposal_id: 0, reason: "unknown answer".into() }),
            }
        }
    }

    /// Answers a membership change as the leader.
    pub(crate) async fn change_member_here(&self, request: peer::ChangeMemberRequest) -> peer::ChangeMemberResponse {
        let result = match request.change {
            Some(Change::AddLearner(record)) => self.add_learner_here(record).await,
            Some(Change::Promote(id)) => self.promote_here(id).await.map(|()| id),
            Some(Change::Remove(id)) => self.remove_safely_here(id, request.force).await.map(|()| id),
            Some(Change::TransferLeader(to)) => self.transfer_leader_here(to).await.map(|()| to),
            Some(Change::Update(record)) => self.update_here(record).await,
            None => Err(StoreError::Invalid("unknown membership change".into())),
        };
        let result = match result {
            Ok(node_id) => Answer::Changed(peer::Changed { node_id, members: self.configured() }),
            Err(StoreError::NotLeader { leader_id }) => {
                let refused = peer::Refused { leader_id: leader_id.unwrap_or(0), reason: "not the leader".into() };
                Answer::Refused(refused)
            }
            Err(StoreError::NoLeader(reason)) => Answer::Refused(peer::Refused { leader_id: 0, reason }),
            Err(StoreError::Invalid(text) | StoreError::Conflict(text)) => Answer::Invalid(text),
            Err(error) => Answer::Unknown(error.to_string()),
        };
        peer::ChangeMemberResponse { result: Some(result) }
    }

    /// The effective configuration, as records.
    pub(crate) fn configured(&self) -> Vec<store::MemberRecord> {
        let Ok(raft) = self.raft() else { return Vec::new() };
        let metrics = raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        crate::types::membership_to_proto(membership.membership()).members
    }

    async fn add_learner_here(&self, mut record: store::MemberRecord) -> Result<u64, StoreError> {
        let raft = self.leading()?;
        if self.state.info().cluster_id == 0 {
            // The founder takes the first id; naming the cluster comes after that.
            return Err(StoreError::NoLeader("the cluster is still being founded".into()));
        }
        if self.directory.get(self.node_id).is_some_and(|own| own.spki.is_empty()) {
            // The joiner could not authenticate this member: its key is not in the configuration yet.
            return Err(StoreError::NoLeader("the cluster is still being founded".into()));
        }
        record.id = 0;
        // The same key again means that the joiner lost its disk, or never got our answer. It must not
        // continue under an id whose log it does not have.
        let members = self.state.members()?;
        if let Some(before) = members.iter().find(|member| member.spki == record.spki) {
            tracing::info!(node_id = before.id, name = before.name, "this key had a place already: it gets a new one");
            self.remove_here(before.id).await?;
        }
        // The same name with another key is a machine that was set up anew, or a second machine of that name.
        if let Some(before) = members.iter().find(|member| member.name == record.name && member.spki != record.spki) {
            if self.answers(before.id).await {
                return Err(StoreError::Invalid(format!(
                    "member {} is named {:?} and is alive: give this server another --node-name, or stop that one first",
                    before.id, before.name
                )));
            }
            tracing::info!(node_id = before.id, name = before.name, "a dead member's name comes back with a new key: it is replaced");
            self.remove_here(before.id).await?;
        }
        let allocate = Body::MemberAllocate(store::MemberAllocateCommand { record: Some(record) });
        let record = match self.submit(allocate).await?.result {
            Some(Outcome::Member(record)) => record,
            other => return Err(StoreError::Invalid(format!("no member id was allocated: {other:?}"))),
        };
        let id = record.id;
        self.configure(&raft, ChangeMembers::AddNodes(BTreeMap::from([(id, unplaced(record))])), true).await?;
        Ok(id)
    }

    /// On the leader: whether a member acknowledges anything from now on, within the time after which it counts as dead.
    async fn answers(&self, id: u64) -> bool {
        let asked = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if id == self.node_id || self.alive(asked.elapsed()).contains(&id) {
                return true;
            }
            if asked.elapsed() > ALIVE_WITHIN {
                return false;
            }
        }
    }

    async fn promote_here(&self, id: u64) -> Result<(), StoreError> {
        let raft = self.leading()?;
        let Some(record) = self.directory.get(id) else {
            return Err(StoreError::Invalid(format!("member {id} not found")));
        };
        if record.role == store::MemberRole::Witness as i32 {
            return Err(StoreError::Invalid(format!("member {id} is a witness and never votes")));
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.configure(&raft, change, true).await
    }

    /// Removes a member, unless the others would then have no live quorum.
    async fn remove_safely_here(&self, id: u64, force: bool) -> Result<(), StoreError> {
        let raft = self.leading()?;
        let mut left: BTreeSet<u64> = raft.voter_ids().collect();
        if !force && left.remove(&id) {
            let alive = self.alive(ALIVE_WITHIN);
            let dead: Vec<u64> = left.iter().copied().filter(|voter| !alive.contains(voter)).collect();
            if !left.is_empty() && left.len() - dead.len() <= left.len() / 2 {
                return Err(StoreError::Invalid(format!(
                    "without member {id} the {} voters left would be no quorum: {dead:?} do not answer; bring them back or remove them first",
                    left.len()
                )));
            }
        }
        self.remove_here(id).await
    }

    async fn remove_here(&self, id: u64) -> Result<(), StoreError> {
        let raft = self.leading()?;
        let (voters, known) = {
            let metrics = raft.metrics();
            let membership = metrics.borrow_watched().membership_config.clone();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            (voters, membership.get_node(&id).is_some())
        };
        if voters.contains(&id) && voters.len() == 1 {
            return Err(StoreError::Invalid("the last voter cannot be removed".into()));
        }
        if id == self.node_id {
            // The next leader does it: this one would end before the record is gone.
            let to = voters.iter().copied().find(|voter| *voter != id);
            self.transfer_leader_here(to.unwrap_or(id)).await?;
            return Err(StoreError::NotLeader { leader_id: to });
        }
        if voters.contains(&id) {
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
            self.configure(&raft, change, false).await?;
        } else if known {
            let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
            self.configure(&raft, change, false).await?;
        }
        let recorded = self.state.members()?.iter().any(|member| member.id == id);
        if recorded {
            self.submit(Body::MemberRemove(store::MemberRemoveCommand { id })).await?;
        } else if !known {
            return Err(StoreError::Invalid(format!("member {id} not found")));
        }
        Ok(())
    }

    async fn update_here(&self, record: store::MemberRecord) -> Result<u64, StoreError> {
        let raft = self.leading()?;
        let id = record.id;
        let Some(current) = self.directory.get(id) else {
            return Err(StoreError::Invalid(format!("member {id} not found")));
        };
        // A place without a key is the one that a restore or a reset made; only its own process can take it, since no
        // peer's key is empty.
        if current.spki != record.spki && !(current.spki.is_empty() && id == self.node_id) {
            return Err(StoreError::Invalid(format!("member {id} has another key")));
        }
        self.submit(Body::MemberUpdate(store::MemberUpdateCommand { record: Some(record.clone()) })).await?;
        let change = ChangeMembers::SetNodes(BTreeMap::from([(id, unplaced(record))]));
        self.configure(&raft, change, true).await?;
        Ok(id)
    }

    async fn transfer_leader_here(&self, to: u64) -> Result<(), StoreError> {
        let raft = self.leading()?;
        if to == self.node_id {
            return Ok(());
        }
        let is_voter = raft.voter_ids().any(|voter| voter == to);
        if !is_voter {
            return Err(StoreError::Invalid(format!("member {to} is not a voter")));
        }
        raft.trigger().transfer_leader(to).await.map_err(|fatal| StoreError::NoLeader(fatal.to_string()))?;
        let mut status = self.status.subscribe();
        let moved = status.wait_for(|status| status.leader.as_ref().is_some_and(|leader| leader.node_id == to));
        match tokio::time::timeout(self.timing.request, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::Shutdown),
            Err(_) => Err(StoreError::NoLeader(format!("member {to} did not take the lead in time"))),
        }
    }

    /// If this member leads: gives the lead to the voter that has most of the log, among those that were heard from
    /// lately. Returns whether this member can stop without causing an election.
    pub(crate) async fn hand_over(&self) -> bool {
        let Ok(raft) = self.leading() else { return true };
        if raft.voter_ids().eq([self.node_id]) {
            return true;
        }
        let Some(to) = self.best_successor(&raft) else { return false };
        tracing::info!(to, "handing over the lead");
        if raft.trigger().transfer_leader(to).await.is_err() {
            return false;
        }
        // Any other leader will do: another member may have won an election meanwhile.
        let others = leader_changed(self.leader.subscribe(), self.node_id);
        tokio::time::timeout(self.timing.rpc, others).await.is_ok()
    }

    fn best_successor(&self, raft: &RaftNode) -> Option<u64> {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let (replication, heard) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
        let recent = self.timing.heartbeat * 5;
        let lives = |id: &u64| heard.get(id).and_then(|at| at.as_ref()).is_some_and(|at| at.elapsed() < recent);
        let others = metrics.membership_config.voter_ids().filter(|id| *id != self.node_id && lives(id));
        others.max_by_key(|id| replication.get(id).and_then(|matched| matched.as_ref()).map(|matched| matched.index()))
    }

    /// Changes openraft's configuration, after a change that is still under way.
    async fn configure(&self, raft: &RaftNode, change: ChangeMembers<u64, store::MemberRecord>, retain: bool) -> Result<(), StoreError> {
        let _one_at_a_time = self.membership.lock().await;
        self.configure_alone(raft, change, retain).await
    }

    async fn configure_alone(
        &self,
        raft: &RaftNode,
        change: ChangeMembers<u64, store::MemberRecord>,
        retain: bool,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + self.timing.request;
        loop {
            match raft.change_membership(change.clone(), retain).await {
                Ok(changed) => {
                    // openraft publishes its metrics a moment later, and the caller's next read of the members must show the change.
                    let shown = shows_membership(raft, changed.log_id.index());
                    let _ = tokio::time::timeout_at(deadline, shown).await;
                    return Ok(());
                }
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return Err(change_error(error)),
            }
        }
    }

    fn leading(&self) -> Result<RaftNode, StoreError> {
        let raft = self.raft()?;
        match raft.is_leader() {
            true => Ok(raft),
            false => Err(StoreError::NotLeader { leader_id: self.status.borrow().leader.as_ref().map(|leader| leader.node_id) }),
        }
    }

    /// Gives learners that have caught up their vote, while this member leads.
    pub(crate) async fn promote_learners(&self) {
        let mut status = self.status.subscribe();
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(PROMOTION_PERIOD) => {}
            }
            if !self.has_members_to_move() {
                // What makes work here is a change of the configuration or of the leader, and shows in the status.
                tokio::select! {
                    () = self.cancel.cancelled() => return,
                    changed = status.changed() => if changed.is_err() { return },
                }
                continue;
            }
            self.finish_joint().await;
            if let Some(id) = self.ready_learner() {
                tracing::info!(node_id = id, "a learner has caught up and becomes a voter");
                if let Err(error) = self.promote_here(id).await {
                    tracing::debug!(node_id = id, %error, "not promoted yet");
                }
            }
        }
    }

    /// Whether this member leads a configuration with learners, or a joint one.
    fn has_members_to_move(&self) -> bool {
        let Ok(raft) = self.leading() else { return false };
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.get_joint_config().len() > 1 || membership.learner_ids().next().is_some()
    }

    /// A leader that was lost between the two steps of a change leaves a joint configuration: the second step is
    /// taken here. A member that was being removed does not stay as a learner, or it would be promoted again.
    async fn finish_joint(&self) {
        let Ok(raft) = self.leading() else { return };
        // Held from reading the configuration to changing it. Where it is taken, a change is between its two steps.
        let Ok(_one_at_a_time) = self.membership.try_lock() else { return };
        let metrics = raft.metrics();
        let joint = metrics.borrow_watched().membership_config.get_joint_config().clone();
        if let (true, Some(goal)) = (joint.len() > 1, joint.last()) {
            tracing::info!(?goal, "finishing a membership change");
            if let Err(error) = self.configure_alone(&raft, ChangeMembers::ReplaceAllVoters(goal.clone()), false).await {
                tracing::debug!(%error, "the membership change is not finished yet");
            }
        }
    }

    /// Reports changes of this member's record to the leader, through any member that answers: the others may not know this
    /// member's new address, so it cannot wait to hear from a leader first.
    pub(crate) async fn announce(&self, record: store::MemberRecord) -> Result<(), StoreError> {
        let request = peer::ChangeMemberRequest { change: Some(Change::Update(record)), force: false };
        if self.leading().is_ok() {
            let response = self.change_member_here(request).await;
            return match response.result {
                Some(Answer::Changed(_)) => Ok(()),
                other => Err(StoreError::NoLeader(format!("{other:?}"))),
            };
        }
        // All at once: each notes where we are, and a leader without a quorum may need just that to get one.
        let peers = self.directory.all().into_iter().filter(|(id, _)| *id != self.node_id);
        let calls = peers.map(|(id, _)| {
            let request = request.clone();
            async move {
                let mut client = self.clients.client(id, Lane::Bulk)?;
                match tokio::time::timeout(self.timing.request, client.change_member(request)).await {
                    Ok(Ok(response)) => Ok(response.into_inner().result),
                    Ok(Err(status)) => {
                        self.clients.heed(&status);
                        Err(StoreError::NoLeader(format!("member {id}: {}", status.message())))
                    }
                    Err(_) => Err(StoreError::NoLeader(format!("member {id} does not answer"))),
                }
            }
        });
        let answers = futures::future::join_all(calls).await;
        match answers.iter().any(|answer| matches!(answer, Ok(Some(Answer::Changed(_))))) {
            true => Ok(()),
            false => Err(StoreError::NoLeader(format!("no leader took this member's address: {answers:?}"))),
        }
    }

    /// On the leader: the members that acknowledged something within `within`, this one included, in order of id.
    pub(crate) fn alive(&self, within: Duration) -> Vec<u64> {
        let Ok(raft) = self.raft() else { return Vec::new() };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(heard) = &metrics.heartbeat else { return Vec::new() };
        let mut alive: Vec<u64> =
            heard.iter().filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < within)).map(|(id, _)| *id).collect();
        if !alive.contains(&self.node_id) {
            alive.push(self.node_id);
            alive.sort_unstable();
        }
        alive
    }

    /// On the leader: how many entries each member lacks. Nothing on a follower.
    pub(crate) fn lags(&self) -> BTreeMap<u64, u64> {
        let Ok(raft) = self.raft() else { return BTreeMap::new() };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return BTreeMap::new() };
        let last = metrics.last_log_index.unwrap_or(0);
        let lag = |matched: Option<u64>| last.saturating_sub(matched.unwrap_or(0));
        replication.iter().map(|(id, matched)| (*id, lag(matched.as_ref().map(|at| at.index())))).collect()
    }

    fn ready_learner(&self) -> Option<u64> {
        let raft = self.raft().ok()?;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let membership = metrics.membership_config.membership();
        if membership.get_joint_config().len() != 1 {
            return None;
        }
        let last = metrics.last_log_index.unwrap_or(0);
        membership
            .learner_ids()
            .filter(|id| membership.get_node(id).is_some_and(|record| record.role != store::MemberRole::Witness as i32))
            .find(|id| {
                let matched = replication.get(id).and_then(|matched| matched.as_ref());
                matched.is_some_and(|matched| matched.index() + PROMOTION_LAG >= last)
            })
    }
}

/// Returns when the metrics show the membership of entry `index`, or a later one.
async fn shows_membership(raft: &RaftNode, index: u64) {
    let mut metrics = raft.metrics();
    while metrics.borrow_watched().membership_config.log_id().is_none_or(|shown| shown.index() < index) {
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> StoreError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => StoreError::NotLeader { leader_id: to.leader_id },
        // Another change is under way: nothing has happened, and it may be tried again.
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => StoreError::NoLeader(error.to_string()),
        error => StoreError::Io(format!("membership change: {error}")),
    }
}
