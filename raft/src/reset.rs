//! A cluster of one made of one survivor, when the quorum is gone for good.
//!
//! Owns the reset of a *stopped* member's folder: what is kept, which members still answer, and that a crash at any point leaves
//! either the old member or the new cluster, never half of both. Must not decide by itself: the operator is told first and asked.
//!
//! **What is kept.** Everything the survivor has on disk: its state, and every entry of its log, also those of which it
//! never learned whether they were committed. An acknowledged write is on a majority, and the survivor may be the
//! only one of that majority that is left; leaving out what is not known to be committed would lose it. So a write
//! whose outcome was unknown may turn out to have happened. What may be lost is what the others acknowledged
//! among themselves, behind the end of the survivor's log.
//!
//! # On disk
//!
//! ```text
//! db                      the member; untouched until the new folder is complete
//! db.reset                the new folder in the making; complete when it has a member file
//! db.before-reset-<id>    the old folder, moved aside at the end
//! ```
//!
//! The new folder takes its place by two renames. Between them there is no `db`, and [`resume`] makes the second.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::time::Instant;
use trireme_proto::store::MemberRecord;

use crate::bootstrap::{self, Progress, Step};
use crate::engine::{Engine, Table};
use crate::error::StoreError;
use crate::log::LogStore;
use crate::metrics::StoreMetrics;
use crate::mvcc::{EntryId, MvccOptions, NewCluster, StateMachine};
use crate::node::machine::{newest_snapshot, to_apply};
use crate::snapshot::{remove_if_present, sync_dir};
use crate::store::datadir::DataDir;
use crate::store::options::Engines;
use crate::types::{Membership, decode_stored_membership, membership_to_proto, term_of};

mod answering;

/// The folder of a stopped member, locked so that no server starts on it meanwhile, and the copy that will replace it.
pub struct Survivor {
    db: PathBuf,
    engines: Arc<dyn Engines>,
    old: DataDir,
    new: DataDir,
    /// The copy, with the whole log applied.
    state: Arc<dyn Engine>,
    report: SurvivorReport,
    membership: Membership,
    last: EntryId,
}

/// What a reset of this member would keep.
#[derive(Clone, PartialEq, Debug)]
pub struct SurvivorReport {
    /// The cluster it is a member of.
    pub cluster_id: u64,
    /// Its id there.
    pub node_id: u64,
    /// All members, this one too.
    pub members: Vec<MemberRecord>,
    /// Its state's revision with every entry of its log: what is kept.
    pub revision: i64,
    /// The last entry of its log.
    pub last_index: u64,
    /// The last entry that it knows to be committed.
    pub committed_index: u64,
}

/// How a reset ended.
#[derive(Clone, PartialEq, Debug)]
pub struct ResetDone {
    /// The cluster that it is now.
    pub cluster: NewCluster,
    /// Where the old folder is.
    pub moved_to: PathBuf,
}

fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut name = db.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    db.with_file_name(name)
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| StoreError::io(&path, error)
}

/// Finishes a reset that was interrupted between its two renames, and removes the remains of one that never got there.
/// Returns whether it finished one. For every start of a server, and before a reset.
///
/// # Errors
/// `Io`.
pub fn resume(db: &Path) -> Result<bool, StoreError> {
    let new = beside(db, ".reset");
    if is_in_use(db) {
        // Another reset waits for confirmation, or a server runs: the unfinished folder belongs to it.
        return Ok(false);
    }
    if db.exists() || !new.join("member").exists() {
        remove_if_present(&new).map_err(failed(&new))?;
        return Ok(false);
    }
    put_in_place(&new, db)?;
    carry_over_backups(db)?;
    Ok(true)
}

/// Whether a process has the store in `db` open.
#[must_use]
pub fn is_in_use(db: &Path) -> bool {
    db.join("LOCK").exists() && File::open(db.join("LOCK")).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

fn put_in_place(new: &Path, db: &Path) -> Result<(), StoreError> {
    std::fs::rename(new, db).map_err(failed(db))?;
    db.parent().map_or(Ok(()), sync_dir).map_err(failed(db))
}

/// The backups that lay in the old folder are not part of it.
fn carry_over_backups(db: &Path) -> Result<(), StoreError> {
    let target = db.join(DataDir::BACKUPS);
    let prefix = beside(db, ".before-reset-");
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(parent) = db.parent() else { return Ok(()) };
    for entry in std::fs::read_dir(parent).map_err(failed(parent))?.flatten() {
        let backups = entry.path().join(DataDir::BACKUPS);
        if entry.file_name().to_string_lossy().starts_with(&prefix) && backups.exists() && !target.exists() {
            std::fs::rename(&backups, &target).map_err(failed(&target))?;
        }
    }
    Ok(())
}

// === impl Survivor ===

impl Survivor {
    /// Opens the folder of a stopped member, and copies its state with everything its log has. Changes nothing in it.
    ///
    /// # Errors
    /// `Invalid` where there is no member or it runs, `Corrupt` where its log is damaged: restore a backup then.
    pub async fn open(db: &Path, engines: Arc<dyn Engines>, progress: Progress<'_>) -> Result<Survivor, StoreError> {
        if !db.join("member").exists() {
            return Err(StoreError::Invalid(format!("{} has no member of a cluster in it", db.display())));
        }
        let (old, member) = DataDir::open(db)?;
        let member = member.ok_or_else(|| StoreError::Invalid(format!("{} has no member of a cluster in it", db.display())))?;
        let staging = beside(db, ".reset");
        remove_if_present(&staging).map_err(failed(&staging))?;
        let (new, _) = DataDir::open(&staging)?;
        let (_, target) = new.state()?;
        copy_state(engines.as_ref(), &old, &target)?;
        progress(Step::Copied)?;

        let state = engines.open_state(&target)?;
        let machine = StateMachine::open(state.clone(), &MvccOptions::default(), Instant::now().into_std())?;
        let mut log = LogStore::open(engines.open_log(&old.log())?, None)?;
        let applied = apply_log(&machine, &mut log).await;
        let (vote, committed) = (log.read_vote().await, log.read_committed().await);
        let last_log = log.last_log_id();
        log.close();
        let known = applied?.max(committed.map_err(|error| StoreError::io("log", error))?.map_or(0, |id| id.index()));
        machine.flush()?;
        progress(Step::Applied)?;

        let info = machine.info();
        drop(machine);
        let index = info.last_applied.map_or(0, |id| id.index).max(last_log.map_or(0, |id| id.index()));
        let seen = vote.map_err(|error| StoreError::io("log", error))?.map_or(0, |vote| vote.leader_id.term);
        let term = seen.max(last_log.as_ref().map_or(0, term_of)).max(info.last_applied.map_or(0, |id| id.term));
        let membership = decode_stored_membership(&info.membership)?.membership().clone();
        let report = SurvivorReport {
            cluster_id: member.cluster_id,
            node_id: member.node_id,
            members: membership_to_proto(&membership).members,
            revision: info.revision,
            last_index: index,
            committed_index: known.min(index),
        };
        Ok(Survivor { db: db.to_owned(), engines, old, new, state, report, membership, last: EntryId { term, index } })
    }

    /// What a reset would keep.
    #[must_use]
    pub fn report(&self) -> &SurvivorReport {
        &self.report
    }

    /// Makes a cluster of one of it.
    ///
    /// # Errors
    /// `Io`, those of the engine, or what `progress` returned. Whatever was done by then, the same call again, or
    /// [`resume`], completes it.
    pub fn reset(self, progress: Progress<'_>) -> Result<ResetDone, StoreError> {
        let Survivor { db, engines, old, new, state, report, last, .. } = self;
        let cluster = bootstrap::bootstrap_over(engines.as_ref(), &new, state, last, progress)?;
        let staging = new.path().to_owned();
        // Closed before it is renamed; the old folder stays locked, so that the old member cannot start now.
        drop(new);
        let moved_to = free_name(&db, report.cluster_id)?;
        std::fs::rename(&db, &moved_to).map_err(failed(&moved_to))?;
        progress(Step::MovedAside)?;
        put_in_place(&staging, &db)?;
        carry_over_backups(&db)?;
        progress(Step::InPlace)?;
        drop(old);
        Ok(ResetDone { cluster, moved_to })
    }

    /// Leaves everything as it was.
    ///
    /// # Errors
    /// `Io` where the copy cannot be removed.
    pub fn abandon(self) -> Result<(), StoreError> {
        let staging = self.new.path().to_owned();
        drop((self.state, self.new));
        remove_if_present(&staging).map_err(failed(&staging))
    }

    /// The members that may vote.
    fn voters(&self) -> BTreeSet<u64> {
        self.membership.voter_ids().collect()
    }
}

fn free_name(db: &Path, cluster_id: u64) -> Result<PathBuf, StoreError> {
    let base = format!(".before-reset-{cluster_id:016x}");
    let names = std::iter::once(base.clone()).chain((2..100).map(|n| format!("{base}-{n}")));
    let mut free = names.map(|name| beside(db, &name)).filter(|path| !path.exists());
    free.next().ok_or_else(|| StoreError::Io(format!("too many folders {}{base}-*: remove some", db.display())))
}

/// The state as far as it is on disk, from the current engine or, where that is damaged or behind it, the snapshot.
fn copy_state(engines: &dyn Engines, old: &DataDir, target: &Path) -> Result<(), StoreError> {
    let (_, current) = old.state()?;
    let opened = engines.open_state(&current).and_then(|engine| {
        let machine = StateMachine::open(engine.clone(), &MvccOptions::default(), Instant::now().into_std())?;
        Ok((engine, machine.info().last_applied.map_or(0, |id| id.index)))
    });
    let snapshot = newest_snapshot(old, &StoreMetrics::new())?;
    let snapshot_index = snapshot.as_ref().and_then(|snapshot| snapshot.manifest().last_log_id).map_or(0, |id| id.index);
    match (opened, snapshot) {
        (Ok((_, applied)), Some(snapshot)) if applied < snapshot_index => engines.restore_state(&snapshot.data(), target),
        (Ok((engine, _)), _) => engine.checkpoint(target, Table::Head, &[]).map(drop),
        (Err(error), Some(snapshot)) => {
            tracing::warn!(%error, "the state is damaged; the snapshot and the log are used");
            engines.restore_state(&snapshot.data(), target)
        }
        (Err(error), None) => Err(error),
    }
}

/// Applies all the log has beyond the state. Returns the last index that the state had applied by itself.
async fn apply_log(machine: &StateMachine, log: &mut LogStore) -> Result<u64, StoreError> {
    let applied = machine.info().last_applied.map_or(0, |id| id.index);
    let end = log.last_log_id().map_or(0, |id| id.index() + 1);
    if log.purged().is_some_and(|purged| purged.index() > applied) {
        return Err(StoreError::Corrupt("neither state nor snapshot reaches the start of the log; restore a snapshot instead".into()));
    }
    let mut next = if machine.info().last_applied.is_some() { applied + 1 } else { 0 };
    while next < end {
        let entries = log.limited_get_log_entries(next, end).await.map_err(|error| StoreError::io("log", error))?;
        let Some(last) = entries.last().map(|entry| entry.log_id.index()) else {
            return Err(StoreError::Corrupt(format!("log entry {next} is missing; restore a snapshot instead")));
        };
        let entries: Vec<_> = entries.into_iter().map(to_apply).collect();
        machine.apply_batch(&entries, Instant::now().into_std())?;
        next = last + 1;
    }
    Ok(applied)
}
