//! Maintenance of a running store: keeps its disk space, compacts old history, tidies its folder.
//!
//! Compaction by time works as kube-apiserver's does: every five minutes history goes up to where the revision stood five
//! minutes before (<https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/>,
//! `--etcd-compaction-interval`). A holder keeps older history (see [`crate::mvcc`]'s holders).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior};
use trireme_proto::peer::change_member_request::Change;
use trireme_proto::store;
use trireme_proto::store::command::Body;

use super::condition::condition;
use super::core::Core;
use super::options::Upkeep;
use super::space::SpaceLevel;
use crate::blocking::blocking;
use crate::error::StoreError;

/// Compaction looks for work this often at most.
const REMOVE_PERIOD: Duration = Duration::from_secs(1);
/// Changes that one step removes: short enough not to hold up an apply.
const REMOVE_STEP: usize = 1000;
/// The log may take this many times the most that is kept of it ([`LogKept::bytes_max`](crate::log::LogKept)): purged entries leave the
/// disk later.
const LOG_SLACK: u64 = 2;
/// Between two attempts to make room.
const ROOM_PAUSE: Duration = Duration::from_secs(5);
/// Samples of the revision within the retention.
const SAMPLES: u32 = 10;
/// History that is kept while space is low.
const RETENTION_WHEN_LOW: Duration = Duration::from_secs(10);

/// Removes compacted history, step by step. Sleeps until there is some.
pub(super) async fn remove_history(core: Arc<Core>) {
    let mut status = core.status.subscribe();
    loop {
        tokio::time::sleep(REMOVE_PERIOD).await;
        while !core.state.has_compacted_history() {
            if status.changed().await.is_err() {
                return;
            }
        }
        loop {
            let state = core.state.clone();
            match blocking(move || state.compact_step(REMOVE_STEP)).await {
                Ok(Ok(true)) => tokio::task::yield_now().await,
                Ok(Ok(false)) | Err(_) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "compaction failed");
                    break;
                }
            }
        }
    }
}

/// Compacts history by age and by number of revisions, while this member leads.
pub(super) async fn retain(core: Arc<Core>, upkeep: Upkeep) {
    if upkeep.retention.is_zero() {
        return;
    }
    let mut samples: VecDeque<(Instant, i64)> = VecDeque::new();
    let mut last = Instant::now();
    let mut space = core.space.status();
    loop {
        let low = space.borrow_and_update().level != SpaceLevel::Ample;
        let retention = if low { upkeep.retention.min(RETENTION_WHEN_LOW) } else { upkeep.retention };
        tokio::select! {
            () = tokio::time::sleep(retention / SAMPLES) => {}
            changed = space.changed() => if changed.is_err() { return },
        }
        let (now, revision) = (Instant::now(), core.state.revision());
        samples.push_back((now, revision));
        while samples.get(1).is_some_and(|(at, _)| now - *at >= retention) {
            samples.pop_front();
        }
        let aged = samples.front().filter(|(at, _)| now - *at >= retention).map_or(0, |(_, revision)| *revision);
        let crowded = revision - upkeep.retention_revisions;
        // By age once in a while, not with every sample: each compaction is a write.
        let due = now - last >= retention || crowded > core.state.compact_revision() + upkeep.retention_revisions / 10;
        let target = aged.max(crowded);
        if !due || target <= core.state.compact_revision() || core.status.borrow().leadership.is_none() {
            continue;
        }
        last = now;
        let compact = Body::Compact(store::CompactCommand { revision: target, holder: String::new() });
        match core.submit(compact).await {
            Ok(_) => tracing::debug!(revision = target, "history before this revision may go"),
            Err(StoreError::Compacted { .. }) => {}
            Err(error) => tracing::debug!(%error, "history is not compacted yet"),
        }
    }
}

/// Watches the space and makes room where it is short.
pub(super) async fn keep_space(core: Arc<Core>, upkeep: Upkeep) {
    let mut period = tokio::time::interval(upkeep.space_every);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_room: Option<Instant> = None;
    loop {
        period.tick().await;
        core.machine.sweep();
        let space = core.space.look(core.state.size_bytes());
        let log_bytes = core.log_engine.lock().upgrade().map_or(0, |engine| engine.size_bytes());
        let short = space.level != SpaceLevel::Ample;
        if !short && log_bytes < upkeep.log.kept.bytes_max.saturating_mul(LOG_SLACK)
            || last_room.is_some_and(|at| at.elapsed() < ROOM_PAUSE)
        {
            continue;
        }
        if short {
            hand_over(&core).await;
        }
        let room = make_room(&core);
        tokio::pin!(room);
        // Other programs may fill the disk meanwhile: the reserve must be released before the snapshot fails for want of space.
        let made = loop {
            tokio::select! {
                made = &mut room => break made,
                _ = period.tick() => { core.space.look(core.state.size_bytes()); }
            }
        };
        if let Err(error) = made {
            tracing::debug!(%error, "no room was made");
        }
        last_room = Some(Instant::now());
    }
}

/// Takes a snapshot, lets the log before it go, and has the engines give back what they no longer need.
async fn make_room(core: &Core) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Io(format!("raft: {error}"));
    let raft = core.raft()?;
    let applied = core.machine.applied().at().index;
    raft.trigger().snapshot().await.map_err(|error| failed(&error))?;
    let mut metrics = raft.metrics();
    let built = async {
        loop {
            let last = metrics.borrow_watched().snapshot.map_or(0, |id| id.index());
            if last >= applied || metrics.changed().await.is_err() {
                return last;
            }
        }
    };
    // If the snapshot is not complete in time, the next attempt finds it.
    if let Ok(last) = tokio::time::timeout(Duration::from_secs(30), built).await {
        raft.trigger().purge_log(last).await.map_err(|error| failed(&error))?;
    }
    let (state, log) = (core.state.clone(), core.log_engine.lock().clone());
    let free = core.space.look(core.state.size_bytes()).free_bytes;
    let work = move || {
        // Merging writes the new tables before the old ones go.
        if state.size_bytes() < free {
            state.reclaim()?;
        }
        match log.upgrade() {
            Some(log) if log.size_bytes() < free => log.reclaim(),
            _ => Ok(()),
        }
    };
    blocking(work).await?
}

/// A leader that is short of space makes way for a member that is not.
async fn hand_over(core: &Core) {
    if core.status.borrow().leadership.is_none() {
        return;
    }
    let voters = core.status.borrow().voters.clone();
    for member in voters.into_iter().filter(|member| *member != core.node_id) {
        let Ok(condition) = condition(core, member).await else { continue };
        if condition.space_level != SpaceLevel::Ample as u32 || !condition.fault.is_empty() {
            continue;
        }
        tracing::warn!(to = member, "this leader is short of space and hands over");
        match core.change(Change::TransferLeader(member)).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(to = member, %error, "leadership was not handed over"),
        }
    }
}
