//! The operations on a state besides applying entries: removing history, taking and installing snapshots, hashing and comparing it, and
//! fencing it after a fault.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;
use trireme_proto::peer::{Digest, DigestRequest};
use trireme_proto::store::StateHead;

use super::head::{info, load, new_head, put_head};
use super::{Fault, KvHash, StateInfo, StateMachine, WriterState, compact, digest, hash, read};
use crate::StoreError;
use crate::engine::{Durability, Engine, Table, WriteBatch};

/// Changes that one step of [`StateMachine::compact_now`] removes; applies go on between the steps.
const COMPACT_NOW_STEP: usize = 1000;

// === impl StateMachine ===

impl StateMachine {
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

    /// Copies the state into `directory`, which must not exist, and says what the copy holds. Applies go on meanwhile: the copy is as of
    /// some batch, and has its head.
    pub fn checkpoint(&self, directory: &Path) -> Result<StateInfo, StoreError> {
        self.hub.check()?;
        let engine = self.hub.engine();
        let head = engine.checkpoint(directory, Table::Head, &[]).and_then(|head| {
            let head = head.ok_or_else(|| StoreError::Corrupt("a copy of the state has no head".into()))?;
            read::decode::<StateHead>("head", &head)
        });
        // A fault of an engine that was replaced meanwhile says nothing about the current state.
        let head = if Arc::ptr_eq(&engine, &self.hub.engine()) { self.hub.note(head) } else { head };
        Ok(info(&head?))
    }

    /// Continues on the state that `engine` holds: a snapshot, opened by the caller. The old engine is closed when
    /// its last reader is done. Watches go on (from history, or they end as compacted) unless the history is another.
    /// A fault ends here; after [`FaultKind::Diverged`] watches end too, for what they were told may never have happened.
    pub fn install(&self, engine: Arc<dyn Engine>, now: Instant) -> Result<StateInfo, StoreError> {
        let mut writer = self.writer.lock();
        let (head, leases, proposals) = load(engine.as_ref(), now)?;
        self.hub.counters().set_keys(None);
        self.latest.restart(&head, || self.hub.replace(engine, &head));
        self.feature_level.store(head.feature_level, Ordering::Release);
        *writer = WriterState { head, leases, proposals, halted: None };
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

    /// Checks that the engine takes writes, by writing the current head again.
    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        let writer = self.writer.lock();
        self.hub.check()?;
        let mut batch = WriteBatch::new();
        put_head(&mut batch, &writer.head);
        self.hub.note(self.hub.engine().write(batch, Durability::Buffered))
    }

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
}
