//! The state machine: keys with revisions, transactions, history, watches, leases, and the cluster's own records.
//!
//! Owns the data model of etcd v3 (<https://etcd.io/docs/v3.6/learning/data_model/>) on an [`Engine`]. Knows no
//! Raft beyond an entry's term and index, does no network, reads no clock: the time comes in as an argument.
//! The core, `apply`, is a pure function of state and entry; everything here is its shell.
//!
//! # Layout
//!
//! etcd keeps all key → revision pairs in memory (its `key_index`) and values by revision on disk. That costs
//! memory for each version and a scan of everything at start. Here the index is on disk too, in tables that are
//! small and in key order, and a value is written once and never moves:
//!
//! | table | key | value |
//! |---|---|---|
//! | `Live` | key | current version: create and mod revision, version, lease |
//! | `Past` | key, mod revision (newest first) | the same of a replaced version, and the revision that ended it |
//! | `Value` | key, mod revision (newest first) | the value |
//! | `Change` | revision, ordinal | key, deleted or not, revision of the version before |
//!
//! Say `a` is put (revision 2), `b` is put (3), `a` is put again (4), and `a` is deleted (5):
//!
//! ```text
//! Live    b   -> create 3, mod 3, version 1
//! Past    a@4 -> create 2, mod 4, version 2, until 5
//!         a@2 -> create 2, mod 2, version 1, until 4
//! Value   a@4, a@2, b@3
//! Change  2 a put, 3 b put, 4 a put (before: 2), 5 a deleted (before: 4)
//! ```
//!
//! - The **latest** keys of a range are one sequential scan of `Live`, and a walk through `Value` beside it.
//!   Counting and comparing never touch a value.
//! - The keys **at revision 4** are a merge of two scans: `Live` where mod ≤ 4 (`b`), else in `Past` the first
//!   version at or below 4, which one seek finds because the newest stands first; it counts if it ended later (`a@4`).
//!   Deletions need no tombstone: a version that ended is just not live.
//! - A **watch from 4** is a scan of `Change` from there. The event's record is the version written at 4, its
//!   `prev_kv` the one at the revision that the change names.
//! - **Compaction to 4** walks `Change` up to 4 and takes away the version each change ended: `a@2`. What is
//!   readable at 4 and above stays, and so do the changes from 4 on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use trireme_proto::etcd;
use trireme_proto::store::{CommandResult, LogId, StateHead};

use crate::StoreError;
use crate::engine::{Durability, Engine, Read, WriteBatch};
use crate::mutant;

mod apply;
mod compact;
mod counters;
pub(crate) mod digest;
mod fault;
mod hash;
mod head;
mod hub;
mod keys;
mod latest;
mod lease;
mod members;
mod proposal_results;
mod proposals;
mod queries;
mod read;
pub(crate) mod records;
mod reset;
mod stage;
#[cfg(test)]
mod tests;
mod txn;
mod upkeep;
mod write;

pub use apply::into_outcome;
pub use compact::POLICY;
pub use counters::MvccCounters;
pub use fault::{Fault, FaultKind};
pub use hash::KvHash;
pub use head::StateInfo;
pub use hub::{Watch, WatchBatch, WatchError, WatchHub};
pub use lease::{ExpiredLease, LeaseInfo};
pub(crate) use proposals::window;
pub use proposals::{PROPOSAL_WINDOW, WIDE_LEVEL, WIDE_PROPOSAL_WINDOW};
pub use reset::{NewCluster, RESET_REVISION_STEP, place, reset_state};
pub use txn::check_txn;

use head::{entry_id, follows, info, load, new_head, put_head};
use latest::Latest;
use lease::LeaseClock;
use proposals::Proposals;
use stage::Stage;

/// Place of an entry in the log. With standard leader ids the term names the leadership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryId {
    /// Term of the leadership that appended it.
    pub term: u64,
    /// Index.
    pub index: u64,
}

/// A committed entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApplyEntry {
    /// Its place.
    pub id: EntryId,
    /// Its content.
    pub body: EntryBody,
}

/// What an entry carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryBody {
    /// Nothing.
    Blank,
    /// An encoded `store::Command`.
    Command(Bytes),
    /// A membership with its log id, encoded by the adapter and opaque here.
    Membership(Bytes),
}

/// Limits of a state machine.
#[derive(Clone, Debug)]
pub struct MvccOptions {
    /// How much of the recent past watches find in memory.
    pub watch_ring_bytes: usize,
    /// How much of the current records, those in use, is found in memory.
    pub latest_bytes: usize,
}

/// The state machine on an engine. Cheap to clone; one writer at a time, any number of readers.
#[derive(Clone)]
pub struct StateMachine {
    hub: Arc<WatchHub>,
    latest: Arc<Latest>,
    writer: Arc<Mutex<WriterState>>,
    /// How far the log beside this state has been synced, or [`LOG_SYNC_UNKNOWN`].
    log_synced: Arc<AtomicU64>,
    /// As in the head, for readers that must not wait for a batch.
    feature_level: Arc<AtomicU32>,
}

const LOG_SYNC_UNKNOWN: u64 = u64::MAX;

struct WriterState {
    head: StateHead,
    leases: LeaseClock,
    proposals: Proposals,
    /// Set by an entry that this release cannot apply.
    halted: Option<StoreError>,
}

// === impl MvccOptions ===

impl Default for MvccOptions {
    fn default() -> MvccOptions {
        MvccOptions { watch_ring_bytes: 4 << 20, latest_bytes: 8 << 20 }
    }
}

// === impl StateMachine ===

impl StateMachine {
    /// Opens the state that `engine` holds, or begins an empty one. `now` starts the leases' clocks.
    pub fn open(engine: Arc<dyn Engine>, options: &MvccOptions, now: Instant) -> Result<StateMachine, StoreError> {
        let (head, leases, proposals) = load(engine.as_ref(), now)?;
        let hub = WatchHub::new(engine, &head, options.watch_ring_bytes);
        let latest = Arc::new(Latest::new(&head, options.latest_bytes));
        let feature_level = Arc::new(AtomicU32::new(head.feature_level));
        let writer = Arc::new(Mutex::new(WriterState { head, leases, proposals, halted: None }));
        let log_synced = Arc::new(AtomicU64::new(LOG_SYNC_UNKNOWN));
        Ok(StateMachine { hub: Arc::new(hub), latest, writer, log_synced, feature_level })
    }

    /// What all members know, as far as this one has applied the log.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.feature_level.load(Ordering::Acquire)
    }

    /// Where the state stands.
    #[must_use]
    pub fn info(&self) -> StateInfo {
        info(&self.writer.lock().head)
    }

    /// Applies committed entries in order, as one atomic write. Entries at or below `last_applied` are passed over
    /// (they have no result to give but the revision), a gap is refused.
    ///
    /// Nothing of the batch is visible after an error, and what may follow depends on it:
    /// - `NoSpace`, `Io`: the engine did not take the batch. The same entries may be applied again later.
    /// - `Corrupt`: the state is damaged. Nothing is read from or written to it until [`Self::install`].
    /// - `Halted`: the entry is damaged or of a newer release. This replica stops here.
    pub fn apply_batch(&self, entries: &[ApplyEntry], now: Instant) -> Result<Vec<CommandResult>, StoreError> {
        self.apply_holding(&mut self.writer.lock(), entries, Durability::Buffered, now)
    }

    /// The same for a caller that must not wait for others: `Busy`, and nothing has happened, where it would have to.
    pub fn apply_promptly(&self, entries: &[ApplyEntry], now: Instant) -> Result<Vec<CommandResult>, StoreError> {
        let mut writer = self.writer.try_lock().ok_or(StoreError::Busy)?;
        self.apply_holding(&mut writer, entries, Durability::Prompt, now)
    }

    fn apply_holding(
        &self,
        writer: &mut WriterState,
        entries: &[ApplyEntry],
        durability: Durability,
        now: Instant,
    ) -> Result<Vec<CommandResult>, StoreError> {
        if let Some(error) = &writer.halted {
            return Err(error.clone());
        }
        self.hub.check()?;
        let applied = self.hub.note(self.apply_locked(writer, entries, durability, now));
        if let Err(error @ StoreError::Halted(_)) = &applied {
            writer.halted = Some(error.clone());
        }
        applied
    }

    fn apply_locked(
        &self,
        writer: &mut WriterState,
        entries: &[ApplyEntry],
        durability: Durability,
        now: Instant,
    ) -> Result<Vec<CommandResult>, StoreError> {
        let engine = self.hub.engine();
        let mut results = Vec::with_capacity(entries.len());
        let mut revisions = Vec::new();
        let mut leases = Vec::new();
        let (mut batch, head, fresh) = {
            let view = engine.view();
            let mut stage = Stage::new(view.as_ref(), &self.latest, &writer.proposals, writer.head.clone());
            for entry in entries {
                if !follows(&stage.head, entry.id)? {
                    results.push(CommandResult { revision: stage.head.revision, result: None });
                    continue;
                }
                let mut result = CommandResult { revision: stage.head.revision, result: None };
                match &entry.body {
                    EntryBody::Blank => {}
                    EntryBody::Membership(_) if mutant::on("membership-not-kept") => {}
                    EntryBody::Membership(membership) => stage.head.membership = membership.clone(),
                    EntryBody::Command(command) => {
                        let (done, effects) = apply::apply(&mut stage, entry.id, command.clone())?;
                        result = done;
                        leases.extend(effects.leases);
                        if !effects.events.is_empty() {
                            revisions.push((effects.revision, effects.events));
                        }
                    }
                }
                stage.head.last_applied = Some(LogId { term: entry.id.term, index: entry.id.index });
                results.push(result);
            }
            let applied = entry_id(&stage.head).map_or(0, |id| id.index);
            let synced = self.log_synced.load(Ordering::Relaxed);
            stage.head.log_synced = (synced != LOG_SYNC_UNKNOWN).then(|| synced.min(applied));
            stage.finish()
        };
        if mutant::on("head-apart-from-data") {
            let mut apart = WriteBatch::new();
            put_head(&mut apart, &head);
            engine.write(apart, Durability::Buffered)?;
        }
        put_head(&mut batch, &head);
        engine.write(batch, durability)?;
        writer.leases.observe(leases, now);
        writer.proposals.take(fresh);
        writer.head = head;
        self.feature_level.store(writer.head.feature_level, Ordering::Release);
        self.latest.advance(&writer.head, &revisions);
        self.hub.counters().applied(&revisions);
        self.hub.publish(&writer.head, revisions);
        Ok(results)
    }

    /// Says how far this member's log has been synced. What is applied from now on carries it: the log may be asked for
    /// that much when both are opened again, and for no more.
    pub fn note_log_synced(&self, index: u64) {
        self.log_synced.store(index, Ordering::Relaxed);
    }

    /// Makes everything applied durable. Returns what is durable now: the log may be purged up to it.
    pub fn flush(&self) -> Result<Option<EntryId>, StoreError> {
        let (engine, last_applied) = {
            let writer = self.writer.lock();
            (self.hub.engine(), entry_id(&writer.head))
        };
        engine.flush()?;
        Ok(last_applied)
    }

    /// Reads a range at the request's revision, or the latest.
    pub fn range(&self, request: &etcd::RangeRequest) -> Result<etcd::RangeResponse, StoreError> {
        self.range_outside(request, &[])
    }

    /// The same as if the keys of `hidden` (each from its first key to, exclusively, its second) did not exist.
    pub fn range_outside(&self, request: &etcd::RangeRequest, hidden: &[(Bytes, Bytes)]) -> Result<etcd::RangeResponse, StoreError> {
        txn::check_range(request)?;
        self.hub.counters().ranges.fetch_add(1, Ordering::Relaxed);
        self.hub.check()?;
        let one = read::asks_for_one_record(request) && !hidden.iter().any(|(first, end)| first <= &request.key && request.key < end);
        if one && let Some((kv, at)) = self.latest.get(&request.key) {
            let header = etcd::ResponseHeader { cluster_id: at.cluster_id, revision: at.revision, ..Default::default() };
            return Ok(etcd::RangeResponse { header: Some(header), kvs: vec![kv], more: false, count: 1 });
        }
        let before = self.latest.at();
        let (mut response, head) = self.read(|view| {
            let head = read::head(view)?.unwrap_or_else(new_head);
            Ok((read::range_outside(view, &head, request, hidden)?, head))
        })?;
        if let ([kv], true) = (response.kvs.as_slice(), one && head.revision == before.revision) {
            self.latest.offer(kv, before);
        }
        response.header = Some(etcd::ResponseHeader { cluster_id: head.cluster_id, revision: head.revision, ..Default::default() });
        Ok(response)
    }

    /// Watches `[key, range_end)` from `start_revision` on; 0 means from the next one.
    pub fn watch(&self, key: Bytes, range_end: Bytes, start_revision: i64) -> Result<Watch, StoreError> {
        self.hub.watch(key, range_end, start_revision)
    }

    /// The revision that readers see.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.hub.tick().revision
    }

    /// The compaction floor.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.hub.tick().compact_revision
    }

    /// Waits until `revision` is visible to readers.
    pub async fn wait_revision(&self, revision: i64) -> Result<(), StoreError> {
        let mut ticks: watch::Receiver<hub::Tick> = self.hub.subscribe();
        let tick =
            ticks.wait_for(|tick| tick.closed || (!tick.condemned && tick.revision >= revision)).await.map_err(|_| StoreError::Shutdown)?;
        if tick.closed { Err(StoreError::Shutdown) } else { Ok(()) }
    }

    /// Ends all watches; reads go on.
    pub fn close(&self) {
        self.hub.close();
    }

    /// Lets go of the engine, for good, and returns it: it is closed when its last reader is done. Reads end with `Shutdown` from now on.
    pub(crate) fn release(&self) -> Arc<dyn Engine> {
        self.hub.release()
    }

    /// What it has counted of itself.
    #[must_use]
    pub fn counters(&self) -> &MvccCounters {
        self.hub.counters()
    }

    /// Reads, if the state is sound; what turns out to be damaged is condemned.
    fn read<T>(&self, read: impl FnOnce(&dyn Read) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.hub.check()?;
        let engine = self.hub.engine();
        let result = read(engine.view().as_ref());
        self.hub.note(result)
    }
}
