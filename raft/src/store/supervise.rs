//! Raft instances end, the store goes on: starts another instance when one has ended, and heals the state first
//! where that is what ended it.
//!
//! Design D8 and D10: after a failed sync the content of the disk is unknown, so the log is closed, opened and verified anew
//! before this member votes again. Damage that is confined to the state is healed here, and keeps the vote:
//!
//! | the state is | rebuilt from |
//! |---|---|
//! | damaged, or its engine refuses writes on a disk that takes them | the own snapshot and log; where they do not reach, a snapshot of another member |
//! | not what the majority has | a snapshot of another member |
//!
//! A damaged log is never healed: this member says so and waits to be started again, when it rejoins under a new id.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;
use trireme_proto::peer;

use super::condition::condition;
use super::core::Core;
use super::instance::{Instance, open_log, start_instance};
use super::space::SpaceLevel;
use super::status::Role;
use crate::blocking::blocking;
use crate::error::StoreError;
use crate::log::LogStore;
use crate::mvcc::{Fault, FaultKind};
use crate::network::client::Lane;
use crate::network::receive::receive_snapshot;
use crate::node::RaftNode;
use crate::node::machine::Machine;
use crate::snapshot::SnapshotDir;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// While the disk is full it is looked at this often: space may come back at any moment.
const PAUSE_FULL: Duration = Duration::from_secs(2);
/// How long a peer may take to build and send a snapshot.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// The time before the next attempt: doubles with each instance that did not live long.
struct Pauses {
    next: Duration,
    started: Instant,
}

/// Runs for as long as the store is open. Without a log no instance runs yet: the state has to be healed first.
pub(super) async fn supervise(core: Arc<Core>, instance: Instance, mut log: Option<LogStore>) {
    let mut pauses = Pauses { next: PAUSE_MIN, started: Instant::now() };
    loop {
        if let Some(log) = log.take() {
            let Ok(raft) = core.raft() else { return };
            let failure = ended(&core, &raft).await;
            if core.cancel.is_cancelled() || core.is_removed() {
                return;
            }
            tracing::error!(%failure, "this Raft instance has ended; reads go on, another one is started");
            core.raft.write().take();
            say(&core, &failure);
            // Where it has stopped already, this waits for its tasks.
            let _ = raft.shutdown().await;
            drop(raft);
            // The writer thread is joined off Raft's own threads.
            let _ = blocking(move || log.close()).await;
        }
        let started = loop {
            tokio::time::sleep(pauses.take(core.space.look(core.state.size_bytes()).level)).await;
            match again(&core, &instance).await {
                Ok(log) => break log,
                Err(error) => {
                    tracing::error!(%error, "raft cannot be started again yet");
                    say(&core, &error.to_string());
                }
            }
        };
        log = Some(started);
        pauses.started = Instant::now();
    }
}

/// Waits until the instance ends, or has to be ended, and returns the reason.
async fn ended(core: &Core, raft: &RaftNode) -> String {
    let mut metrics = raft.metrics();
    let mut fault = core.state.fault();
    loop {
        if let Some(fault) = &*fault.borrow_and_update() {
            let damage = &core.metrics.damage;
            let found = if fault.kind == FaultKind::Diverged { &damage.diverged } else { &damage.state };
            found.fetch_add(1, Ordering::Relaxed);
            return fault.reason.to_string();
        }
        if let Err(fatal) = &metrics.borrow_watched().running_state {
            return fatal.to_string();
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return "raft ended".to_owned() },
            _ = fault.changed() => {}
        }
    }
}

fn say(core: &Core, failure: &str) {
    core.status.send_modify(|status| {
        status.failure = Some(failure.into());
        status.role = Role::Stopped;
        status.leadership = None;
        status.leader = None;
        status.has_quorum_contact = false;
        core.leader.send_replace(None);
    });
}

/// Heals the state if necessary, and starts an instance.
async fn again(core: &Arc<Core>, instance: &Instance) -> Result<LogStore, StoreError> {
    if core.state.fault().borrow().is_none()
        && let Err(error) = exercise(core).await
    {
        let Some(reason) = given_up(core, &error).await else { return Err(error) };
        core.state.condemn(Fault { kind: FaultKind::Damaged, reason: reason.into() });
    }
    let fault = core.state.fault().borrow().clone();
    if let Some(fault) = fault {
        rebuild(core, instance, &fault).await?;
        tracing::warn!(reason = %fault.reason, "the state of this member has been rebuilt");
        exercise(core).await?;
    }
    let started = start_instance(core, instance, None).await.map_err(|error| core.data_dir.lost(error));
    if let Err(StoreError::MustRejoin(_)) = &started {
        // The damage is seen again at each attempt but counted once.
        core.metrics.damage.log.store(1, Ordering::Relaxed);
    }
    started
}

/// Tests the state: writes to it, and builds a snapshot of it.
///
/// A follower applies what a majority has on disk, even if its own log fails: the state may be ahead of a log that could not be written.
/// openraft then lets the log begin behind the state, which it may as soon as a snapshot reaches that far.
async fn exercise(core: &Core) -> Result<(), StoreError> {
    let (state, machine) = (core.state.clone(), Machine::new(core.state.clone(), core.machine.clone()));
    disk(move || {
        state.probe()?;
        if state.info().last_applied.is_some() {
            machine.build()?;
        }
        Ok(())
    })
    .await
}

/// Why the state's engine is given up for another that is opened on the same disk; none where it is the disk that fails.
/// An engine to which a write failed once may refuse all others, long after the disk is itself again.
async fn given_up(core: &Core, error: &StoreError) -> Option<String> {
    match error {
        StoreError::NoSpace if core.space.look(core.state.size_bytes()).level != SpaceLevel::Full => {
            Some("the engine takes no writes although there is space".to_owned())
        }
        StoreError::Io(text) => {
            let data_dir = core.data_dir.clone();
            disk(move || data_dir.try_sync()).await.ok().map(|()| format!("the engine has failed and the disk works: {text}"))
        }
        _ => None,
    }
}

/// Replaces the state while no instance runs.
async fn rebuild(core: &Arc<Core>, instance: &Instance, fault: &Fault) -> Result<(), StoreError> {
    let purged = {
        let (engines, data_dir, threads) = (instance.engines.clone(), core.data_dir.clone(), instance.threads);
        disk(move || {
            let log = open_log(engines.as_ref(), &data_dir, None, threads)?;
            let purged = log.purged();
            log.close();
            Ok(purged)
        })
        .await?
    };
    let machine = Machine::new(core.state.clone(), core.machine.clone());
    let damage = &core.metrics.damage;
    if fault.kind == FaultKind::Damaged {
        let shared = core.machine.clone();
        let own = disk(move || Ok(shared.sound_snapshot())).await?;
        let reaches = own.as_ref().map(SnapshotDir::meta).transpose()?.and_then(|meta| meta.last_log_id) >= purged;
        if reaches {
            disk(move || machine.replace_state(own.as_ref())).await?;
            damage.rebuilt.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
    }
    let snapshot = fetch(core, purged.map_or(0, |id| id.index())).await?;
    disk(move || machine.adopt(snapshot)).await?;
    damage.reseeded.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A snapshot of whichever other member is furthest.
async fn fetch(core: &Core, at_least_index: u64) -> Result<SnapshotDir, StoreError> {
    let mut sources = Vec::new();
    for (member, _) in core.directory.all().into_iter().filter(|(member, _)| *member != core.node_id) {
        match condition(core, member).await {
            Ok(condition) if condition.fault.is_empty() => sources.push((condition.applied_index, member)),
            Ok(condition) => tracing::debug!(member, fault = condition.fault, "no snapshot from there"),
            Err(error) => tracing::debug!(member, %error, "no snapshot from there"),
        }
    }
    sources.sort_unstable();
    let mut failure = StoreError::Unavailable("no other member can give a snapshot; this one needs one to rebuild its state".into());
    for (_, member) in sources.into_iter().rev() {
        match fetch_from(core, member, at_least_index).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => {
                tracing::warn!(member, %error, "no snapshot from there");
                failure = error;
            }
        }
    }
    Err(failure)
}

async fn fetch_from(core: &Core, member: u64, at_least_index: u64) -> Result<SnapshotDir, StoreError> {
    let failed = |what: String| StoreError::Io(format!("snapshot of member {member}: {what}"));
    let mut client = core.clients.client(member, Lane::Bulk)?;
    let path = core.data_dir.incoming_snapshot();
    let fetched = async {
        let stream = client.fetch_snapshot(peer::FetchSnapshotRequest { at_least_index }).await;
        let stream = stream.map_err(|status| failed(status.message().to_owned()))?;
        receive_snapshot(&path, core.cluster_id, stream.into_inner()).await
    };
    let (_, snapshot) = tokio::time::timeout(FETCH_LIMIT, fetched).await.map_err(|_| failed("not in time".into()))??;
    if snapshot.manifest().last_log_id.as_ref().map_or(0, |id| id.index) < at_least_index {
        snapshot.supersede();
        return Err(failed(format!("it does not reach entry {at_least_index}")));
    }
    Ok(snapshot)
}

async fn disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    blocking(work).await?
}

// === impl Pauses ===

impl Pauses {
    fn take(&mut self, space: SpaceLevel) -> Duration {
        if self.started.elapsed() > PAUSE_MAX * 2 || space == SpaceLevel::Full {
            self.next = PAUSE_MIN;
        }
        self.started = Instant::now();
        if space == SpaceLevel::Full {
            // What fails now says nothing about the first attempt after there is space.
            return PAUSE_FULL;
        }
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

impl Core {
    /// Whether Raft is down on the only voter. No other member can have acknowledged a write, and this member has applied
    /// everything that it acknowledged, so its state is as good as a read confirmed by a quorum of one.
    pub(crate) fn alone_without_raft(&self) -> bool {
        let status = self.status.borrow();
        let down = status.role == Role::Stopped && status.failure.is_some() && self.raft.read().is_none();
        down && status.voters == [self.node_id] && !status.changing_members && self.state.fault().borrow().is_none()
    }

    /// A snapshot for another member, built if there is none that reaches far enough.
    pub(crate) async fn snapshot_here(&self, at_least_index: u64) -> Result<SnapshotDir, StoreError> {
        if let Some(fault) = &*self.state.fault().borrow() {
            return Err(StoreError::Unavailable(fault.reason.to_string()));
        }
        let (shared, machine) = (self.machine.clone(), Machine::new(self.state.clone(), self.machine.clone()));
        disk(move || {
            let reaches = |snapshot: &SnapshotDir| snapshot.manifest().last_log_id.as_ref().is_some_and(|id| id.index >= at_least_index);
            match shared.sound_snapshot().filter(reaches) {
                Some(snapshot) => Ok(snapshot),
                None => Ok(machine.build()?.snapshot),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_but_not_while_the_disk_is_full() {
        let mut pauses = Pauses { next: PAUSE_MIN, started: Instant::now() };
        let mut take = |space| pauses.take(space).as_secs();
        assert_eq!([(); 7].map(|()| take(SpaceLevel::Ample)), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!([(); 3].map(|()| take(SpaceLevel::Full)), [2, 2, 2]);
        assert_eq!([take(SpaceLevel::Low), take(SpaceLevel::Low)], [1, 2], "space that has come back is used at once");
        tokio::time::advance(PAUSE_MAX * 3).await;
        assert_eq!(take(SpaceLevel::Ample), 1, "an instance that lived long is no failure");
    }
}
