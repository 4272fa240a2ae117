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

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;
use trireme_proto::etcd;
use trireme_proto::peer::{Digest, DigestRequest};
use trireme_proto::store::{
    CommandResult, FORMAT_STATE, HolderRecord, LeaseCheckpointCommand, LogId, MemberRecord, SealedRecord, StateHead,
};

use crate::StoreError;
use crate::engine::{Durability, Engine, Read, Table, WriteBatch};
use crate::mutant;

mod apply;
mod compact;
mod counters;
pub(crate) mod digest;
mod fault;
mod hash;
mod hub;
mod keys;
mod lease;
mod members;
mod read;
pub(crate) mod records;
mod stage;
#[cfg(test)]
mod tests;
mod txn;
mod write;

pub use apply::{PROPOSAL_WINDOW, into_outcome};
pub use compact::POLICY;
pub use counters::MvccCounters;
pub use fault::{Fault, FaultKind};
pub use hash::KvHash;
pub use hub::{Watch, WatchBatch, WatchError, WatchHub};
pub use lease::{ExpiredLease, LeaseInfo};
pub use txn::check_txn;

use lease::LeaseClock;
use stage::Stage;

/// By how much restore and reset raise the revision: more than any client can have seen of the lost future.
pub const RESET_REVISION_STEP: i64 = 1_000_000_000;

/// Changes that one step of [`StateMachine::compact_now`] removes; applies go on between the steps.
const COMPACT_NOW_STEP: usize = 1000;

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
}

/// Where the state stands. All of it is written in the same batch as the data it describes.
#[derive(Clone, PartialEq, Debug)]
pub struct StateInfo {
    /// The last entry applied.
    pub last_applied: Option<EntryId>,
    /// As it came in with [`EntryBody::Membership`]; empty if none did.
    pub membership: Bytes,
    /// The store's revision.
    pub revision: i64,
    /// Reads below are refused.
    pub compact_revision: i64,
    /// Commands up to this level may be proposed.
    pub feature_level: u32,
    /// 0 before the cluster is named.
    pub cluster_id: u64,
}

/// The state machine on an engine. Cheap to clone; one writer at a time, any number of readers.
#[derive(Clone)]
pub struct StateMachine {
    hub: Arc<WatchHub>,
    writer: Arc<Mutex<WriterState>>,
}

struct WriterState {
    head: StateHead,
    leases: LeaseClock,
    /// Set by an entry that this release cannot apply.
    halted: Option<StoreError>,
}

// === impl MvccOptions ===

impl Default for MvccOptions {
    fn default() -> MvccOptions {
        MvccOptions { watch_ring_bytes: 4 << 20 }
    }
}

// === impl StateMachine ===

impl StateMachine {
    /// Opens the state that `engine` holds, or begins an empty one. `now` starts the leases' clocks.
    pub fn open(engine: Arc<dyn Engine>, options: &MvccOptions, now: Instant) -> Result<StateMachine, StoreError> {
        let (head, leases) = load(engine.as_ref(), now)?;
        let hub = WatchHub::new(engine, &head, options.watch_ring_bytes);
        Ok(StateMachine { hub: Arc::new(hub), writer: Arc::new(Mutex::new(WriterState { head, leases, halted: None })) })
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
        let mut writer = self.writer.lock();
        if let Some(error) = &writer.halted {
            return Err(error.clone());
        }
        self.hub.check()?;
        let applied = self.hub.note(self.apply_locked(&mut writer, entries, now));
        if let Err(error @ StoreError::Halted(_)) = &applied {
            writer.halted = Some(error.clone());
        }
        applied
    }

    fn apply_locked(&self, writer: &mut WriterState, entries: &[ApplyEntry], now: Instant) -> Result<Vec<CommandResult>, StoreError> {
        let engine = self.hub.engine();
        let mut results = Vec::with_capacity(entries.len());
        let mut revisions = Vec::new();
        let mut leases = Vec::new();
        let (mut batch, head) = {
            let view = engine.view();
            let mut stage = Stage::new(view.as_ref(), writer.head.clone());
            for entry in entries {
                if !follows(&stage.head, entry.id)? {
                    results.push(CommandResult { revision: stage.head.revision, result: None });
                    continue;
                }
                let mut result = CommandResult { revision: stage.head.revision, result: None };
                apply::forget_proposal(&mut stage, entry.id.index)?;
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
            stage.finish()
        };
        if mutant::on("head-apart-from-data") {
            let mut apart = WriteBatch::new();
            put_head(&mut apart, &head);
            engine.write(apart, Durability::Buffered)?;
        }
        put_head(&mut batch, &head);
        engine.write(batch, Durability::Buffered)?;
        writer.leases.observe(leases, now);
        writer.head = head;
        self.hub.counters().applied(&revisions);
        self.hub.publish(&writer.head, revisions);
        Ok(results)
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
        let (mut response, head) = self.read(|view| {
            let head = read::head(view)?.unwrap_or_else(new_head);
            Ok((read::range_outside(view, &head, request, hidden)?, head))
        })?;
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

    /// Whether [`Self::compact_step`] has anything to do.
    #[must_use]
    pub fn has_compacted_history(&self) -> bool {
        let writer = self.writer.lock();
        writer.head.compacted_to < writer.head.compact_revision
    }

    /// Removes some of what lies below the compaction floor. Returns whether there is more.
    pub fn compact_step(&self, max_changes: usize) -> Result<bool, StoreError> {
        let mut writer = self.writer.lock();
        if writer.head.compacted_to >= writer.head.compact_revision {
            return Ok(false);
        }
        self.hub.check()?;
        let engine = self.hub.engine();
        let step = compact::remove_step(engine.view().as_ref(), &writer.head, max_changes.max(1));
        let (mut batch, reached) = self.hub.note(step)?;
        let head = StateHead { compacted_to: reached, ..writer.head.clone() };
        put_head(&mut batch, &head);
        self.hub.note(engine.write(batch, Durability::Buffered))?;
        writer.head = head;
        Ok(writer.head.compacted_to < writer.head.compact_revision)
    }

    /// Removes all that lies below the compaction floor, now.
    pub fn compact_now(&self) -> Result<(), StoreError> {
        while self.compact_step(COMPACT_NOW_STEP)? {}
        Ok(())
    }

    /// A number that is the same on every member for the same revision and compaction floor. Reads everything.
    pub fn hash(&self, revision: i64) -> Result<KvHash, StoreError> {
        let engine = self.hub.engine();
        let view = engine.view();
        let head = read::head(view.as_ref())?.unwrap_or_else(new_head);
        hash::hash(view.as_ref(), &head, revision)
    }

    /// The number of keys. The first call counts them, with applies waiting meanwhile; from then on it is followed.
    pub fn keys(&self) -> Result<i64, StoreError> {
        if let Some(keys) = self.hub.counters().keys() {
            return Ok(keys);
        }
        let _writer = self.writer.lock();
        let engine = self.hub.engine();
        let mut keys = 0;
        let view = engine.view();
        let mut live = view.cursor(Table::Live, &[], None)?;
        while live.entry().is_some() {
            keys += 1;
            live.advance()?;
        }
        self.hub.counters().set_keys(Some(keys));
        Ok(keys)
    }

    /// What it has counted of itself.
    #[must_use]
    pub fn counters(&self) -> &MvccCounters {
        self.hub.counters()
    }

    // ---- leases ----

    /// Leases that ran out; the leader proposes their revocation with the generation given.
    #[must_use]
    pub fn expired_leases(&self, now: Instant) -> Vec<ExpiredLease> {
        self.writer.lock().leases.expired(now)
    }

    /// When to look for expired leases next.
    #[must_use]
    pub fn next_lease_deadline(&self) -> Option<Instant> {
        self.writer.lock().leases.next_deadline()
    }

    /// Starts all leases anew with their persisted remaining TTL: what a new leader does first.
    pub fn restart_leases(&self, now: Instant) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        writer.leases = self.read(|view| LeaseClock::restart(view, now))?;
        Ok(())
    }

    /// Remaining TTLs worth persisting: those that fell by `step` since they were last.
    #[must_use]
    pub fn lease_checkpoints(&self, now: Instant, step: Duration) -> LeaseCheckpointCommand {
        self.writer.lock().leases.checkpoints(now, step)
    }

    /// What is known of a lease.
    pub fn lease(&self, id: i64, now: Instant) -> Result<Option<LeaseInfo>, StoreError> {
        let writer = self.writer.lock();
        self.read(|view| {
            let Some(record) = lease::lookup(view, id)? else { return Ok(None) };
            let remaining_secs = writer.leases.remaining_secs(id, now);
            Ok(Some(LeaseInfo { id, ttl_secs: record.ttl_secs, remaining_secs, keys: lease::attached(view, id)? }))
        })
    }

    /// Ids of all leases.
    pub fn leases(&self) -> Result<Vec<i64>, StoreError> {
        Ok(self.read(lease::all)?.into_iter().map(|record| record.id).collect())
    }

    // ---- the cluster's records ----

    /// The members' records, by id.
    pub fn members(&self) -> Result<Vec<MemberRecord>, StoreError> {
        self.read(members::all)
    }

    /// Whether a member had this id and has it no more.
    pub fn had_member(&self, id: u64) -> Result<bool, StoreError> {
        // In this order: a record allocated before the counter was read is seen.
        let next = self.writer.lock().head.next_member_id;
        members::had(self.hub.engine().view().as_ref(), next, id)
    }

    /// A sealed key and its version.
    pub fn sealed(&self, name: &str) -> Result<Option<SealedRecord>, StoreError> {
        self.read(|view| members::sealed(view, name))
    }

    /// Who keeps history from being compacted.
    pub fn holders(&self) -> Result<Vec<HolderRecord>, StoreError> {
        self.read(compact::all)
    }

    // ---- snapshots ----

    /// Copies the state into `directory`, which must not exist, and says what the copy holds. Applies wait meanwhile.
    pub fn checkpoint(&self, directory: &Path) -> Result<StateInfo, StoreError> {
        let writer = self.writer.lock();
        self.hub.check()?;
        self.hub.note(self.hub.engine().checkpoint(directory))?;
        Ok(info(&writer.head))
    }

    /// Continues on the state that `engine` holds: a snapshot, opened by the caller. The old engine is closed when
    /// its last reader is done. Watches go on (from history, or they end as compacted) unless the history is another.
    /// A fault ends here; after [`FaultKind::Diverged`] watches end too, for what they were told may never have happened.
    pub fn install(&self, engine: Arc<dyn Engine>, now: Instant) -> Result<StateInfo, StoreError> {
        let mut writer = self.writer.lock();
        let (head, leases) = load(engine.as_ref(), now)?;
        self.hub.counters().set_keys(None);
        self.hub.replace(engine, &head);
        *writer = WriterState { head, leases, halted: None };
        Ok(info(&writer.head))
    }

    /// The engine that holds the published state, for a view of all of it.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.hub.engine()
    }

    /// The engine's size on disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.hub.engine().size_bytes()
    }

    /// How much of it is in use.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.hub.engine().live_bytes()
    }

    /// Gives space of removed history back to the file system, at the cost of rewriting what is around it.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        self.hub.check()?;
        self.hub.note(self.hub.engine().reclaim())
    }

    /// Whether the engine takes writes: writes what is there already.
    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        let writer = self.writer.lock();
        self.hub.check()?;
        let mut batch = WriteBatch::new();
        put_head(&mut batch, &writer.head);
        self.hub.note(self.hub.engine().write(batch, Durability::Buffered))
    }

    // ---- soundness ----

    /// What is wrong with the state, as it changes.
    #[must_use]
    pub fn fault(&self) -> watch::Receiver<Option<Fault>> {
        self.hub.fault()
    }

    /// From now on nothing is read from this state or written to it, until another one is installed.
    pub fn condemn(&self, fault: Fault) {
        self.hub.condemn(fault);
    }

    /// The digest of a part that another replica has named.
    pub(crate) fn digest(&self, part: &DigestRequest) -> Result<digest::Answer, StoreError> {
        self.read(|view| digest::digest(view, part))
    }

    /// The next part to compare, and its digest here.
    pub(crate) fn next_part(
        &self,
        start: &Bytes,
        changes_from: i64,
        limit: digest::PartLimit,
    ) -> Result<(DigestRequest, Digest), StoreError> {
        self.read(|view| digest::next_part(view, start, changes_from, limit))
    }

    /// Reads, if the state is sound; what turns out to be damaged is condemned.
    fn read<T>(&self, read: impl FnOnce(&dyn Read) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.hub.check()?;
        let engine = self.hub.engine();
        let result = read(engine.view().as_ref());
        self.hub.note(result)
    }
}

/// What [`reset_state`] makes.
#[derive(Clone, PartialEq, Debug)]
pub struct NewCluster {
    /// Its id.
    pub cluster_id: u64,
    /// The id of its only member. Fresh: ids stay used up.
    pub node_id: u64,
    /// Its revision, which is also the oldest that can be read.
    pub revision: i64,
}

/// Makes another cluster of the state in `engine`, for restore and reset: a new cluster id, one member without a key
/// yet, no place in a log, and a revision so far on that no client has seen it, with everything before compacted.
///
/// Watches on older states break by the new epoch. [`place`] has to follow.
pub fn reset_state(engine: &dyn Engine, cluster_id: u64) -> Result<NewCluster, StoreError> {
    let mut head = read::head(engine.view().as_ref())?.unwrap_or_else(new_head);
    let node_id = head.next_member_id.max(1);
    head.next_member_id = node_id + 1;
    head.revision += RESET_REVISION_STEP;
    head.compact_revision = head.revision;
    head.cluster_id = cluster_id;
    head.epoch += 1;
    head.last_applied = None;
    head.membership = Bytes::new();
    let mut batch = WriteBatch::new();
    for table in [Table::Member, Table::Holder, Table::Proposal, Table::ProposalOrder] {
        batch.delete_range(table, &[], None);
    }
    // It says who it is when it starts: key, name and addresses may be others by then.
    let member = MemberRecord { id: node_id, feature_level: head.feature_level, ..MemberRecord::default() };
    batch.put(Table::Member, &node_id.to_be_bytes(), member.encode_to_vec());
    // Nobody could keep a lease alive while the cluster was gone: all begin anew.
    for lease in lease::all(engine.view().as_ref())? {
        lease::refresh(&mut batch, lease);
    }
    put_head(&mut batch, &head);
    engine.write(batch, Durability::Buffered)?;
    engine.flush()?;
    Ok(NewCluster { cluster_id, node_id, revision: head.revision })
}

/// Says that the state in `engine` is as of entry `at`, and who is configured there. The log begins after it.
pub fn place(engine: &dyn Engine, at: EntryId, membership: Bytes) -> Result<StateInfo, StoreError> {
    let mut head = read::head(engine.view().as_ref())?.unwrap_or_else(new_head);
    head.last_applied = Some(LogId { term: at.term, index: at.index });
    head.membership = membership;
    let mut batch = WriteBatch::new();
    put_head(&mut batch, &head);
    engine.write(batch, Durability::Buffered)?;
    engine.flush()?;
    Ok(info(&head))
}

/// The head of an empty store. Its revision is 1, as etcd's is.
fn new_head() -> StateHead {
    StateHead { format: FORMAT_STATE, revision: 1, next_member_id: 1, ..Default::default() }
}

fn load(engine: &dyn Engine, now: Instant) -> Result<(StateHead, LeaseClock), StoreError> {
    let view = engine.view();
    let head = match read::head(view.as_ref())? {
        Some(head) => head,
        None => {
            let head = new_head();
            let mut batch = WriteBatch::new();
            put_head(&mut batch, &head);
            engine.write(batch, Durability::Buffered)?;
            head
        }
    };
    if head.format != FORMAT_STATE {
        return Err(StoreError::Corrupt(format!("state has format {}, this release reads {FORMAT_STATE}", head.format)));
    }
    let leases = LeaseClock::restart(view.as_ref(), now)?;
    Ok((head, leases))
}

fn put_head(batch: &mut WriteBatch, head: &StateHead) {
    batch.put(Table::Head, &[], head.encode_to_vec());
}

fn entry_id(head: &StateHead) -> Option<EntryId> {
    head.last_applied.as_ref().map(|id| EntryId { term: id.term, index: id.index })
}

fn info(head: &StateHead) -> StateInfo {
    StateInfo {
        last_applied: entry_id(head),
        membership: head.membership.clone(),
        revision: head.revision,
        compact_revision: head.compact_revision,
        feature_level: head.feature_level,
        cluster_id: head.cluster_id,
    }
}

/// Whether the entry is the next one; false for one that was applied before.
fn follows(head: &StateHead, id: EntryId) -> Result<bool, StoreError> {
    let Some(last) = &head.last_applied else { return Ok(true) };
    if id.index <= last.index {
        return Ok(false);
    }
    if id.index != last.index + 1 || id.term < last.term {
        return Err(StoreError::Halted(format!(
            "entry {} of term {} cannot follow entry {} of term {}",
            id.index, id.term, last.index, last.term
        )));
    }
    Ok(true)
}
