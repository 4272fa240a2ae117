//! Watching: the events of a key range from a revision on.
//!
//! A watch pulls. It remembers the next revision it needs and waits until the state has passed it; then it reads
//! from the ring of recent revisions, shared by all watches, or, where the ring no longer reaches, from the
//! change log in the engine. So there is no queue per watcher, memory is bounded by the ring, and a slow
//! consumer moves to history by itself: it is never skipped, and only compaction ends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use trireme_proto::etcd::{self, event::EventType};
use trireme_proto::store::{ChangeRecord, StateHead};

use super::counters::MvccCounters;
use super::fault::{Fault, FaultKind, Soundness};
use super::keys::{KeyRange, change_key, change_revision};
use super::read;
use crate::StoreError;
use crate::engine::closed::ClosedEngine;
use crate::engine::{Engine, Read, Table};
use crate::mutant;

/// A batch from history ends after the revision that reaches one of these.
const MAX_BATCH_EVENTS: usize = 500;
const MAX_BATCH_BYTES: usize = 2 << 20;
/// How many changes, of whatever key, one step through history looks at.
const MAX_BATCH_CHANGES: usize = 5000;

/// Events of one or more revisions, in order.
#[derive(Clone, PartialEq, Debug)]
pub struct WatchBatch {
    /// Every event up to this revision has been delivered.
    pub revision: i64,
    /// The events in the watched range; a transaction's are never split between batches.
    pub events: Arc<[etcd::Event]>,
}

/// Why a watch has ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// The next revision it needs has been compacted.
    #[error("revision has been compacted (oldest is {compact_revision})")]
    Compacted {
        /// The oldest revision that can still be read.
        compact_revision: i64,
    },
    /// The state was replaced by another history: list again.
    #[error("the store was reset")]
    Reset,
    /// The store is closed.
    #[error("the store is shut down")]
    Shutdown,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A watch; see [`super::StateMachine::watch`].
pub struct Watch {
    range: KeyRange,
    next: i64,
    epoch: u64,
    incarnation: u64,
    ticks: watch::Receiver<Tick>,
    hub: Arc<WatchHub>,
    /// Whether the last batch came from history.
    slow: bool,
}

/// Where the published state stands.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Tick {
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) epoch: u64,
    /// Counts the states of this process that were replaced because they had diverged.
    pub(crate) incarnation: u64,
    /// The state has a fault: nothing is read until it is replaced.
    pub(crate) condemned: bool,
    pub(crate) closed: bool,
}

/// What all watches of a state share.
pub struct WatchHub {
    ticks: watch::Sender<Tick>,
    ring: RwLock<Ring>,
    engine: RwLock<Arc<dyn Engine>>,
    retired: Retired,
    counters: MvccCounters,
    soundness: Soundness,
}

/// Threads that close engines which were replaced. They have ended when the hub is gone: RocksDB must not be at work while a process destroys
/// its statics.
#[derive(Default)]
struct Retired(Mutex<Vec<JoinHandle<()>>>);

/// The most recent revisions.
struct Ring {
    revisions: VecDeque<Recent>,
    bytes: usize,
    max_bytes: usize,
    /// The oldest revision from which on the ring has everything.
    covers_from: i64,
}

#[derive(Clone)]
struct Recent {
    revision: i64,
    events: Arc<[etcd::Event]>,
    bytes: usize,
}

fn tick(head: &StateHead) -> Tick {
    Tick { revision: head.revision, compact_revision: head.compact_revision, epoch: head.epoch, ..Tick::default() }
}

fn event_bytes(event: &etcd::Event) -> usize {
    let kv_bytes = |kv: &Option<etcd::KeyValue>| kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
    // 256: what the records themselves take in memory, roughly.
    kv_bytes(&event.kv) + kv_bytes(&event.prev_kv) + 256
}

// === impl WatchHub ===

impl WatchHub {
    pub(crate) fn new(engine: Arc<dyn Engine>, head: &StateHead, ring_bytes: usize) -> WatchHub {
        let ring = Ring { revisions: VecDeque::new(), bytes: 0, max_bytes: ring_bytes, covers_from: head.revision + 1 };
        WatchHub {
            ticks: watch::Sender::new(tick(head)),
            ring: RwLock::new(ring),
            engine: RwLock::new(engine),
            retired: Retired::default(),
            counters: MvccCounters::new(),
            soundness: Soundness::default(),
        }
    }

    pub(crate) fn fault(&self) -> watch::Receiver<Option<Fault>> {
        self.soundness.subscribe()
    }

    /// An error while the state has a fault.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.soundness.check()
    }

    pub(crate) fn condemn(&self, fault: Fault) {
        if self.soundness.condemn(fault) {
            self.ticks.send_modify(|tick| tick.condemned = true);
        }
    }

    /// Returns a result unchanged, except that damage condemns the state and becomes `Unavailable`, so that the caller asks another member.
    pub(crate) fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.map_err(|error| match error {
            StoreError::Corrupt(reason) => {
                self.condemn(Fault { kind: FaultKind::Damaged, reason: reason.as_str().into() });
                StoreError::Unavailable(reason)
            }
            error => error,
        })
    }

    /// The engine that holds the published state.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.engine.read().clone()
    }

    pub(crate) fn counters(&self) -> &MvccCounters {
        &self.counters
    }

    pub(crate) fn tick(&self) -> Tick {
        *self.ticks.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Tick> {
        self.ticks.subscribe()
    }

    /// Shows a state that the engine holds already.
    pub(crate) fn publish(&self, head: &StateHead, revisions: Vec<(i64, Vec<etcd::Event>)>) {
        if !revisions.is_empty() {
            let mut ring = self.ring.write();
            for (revision, events) in revisions {
                ring.push(revision, events);
            }
        }
        self.ticks.send_if_modified(|current| {
            let tick = Tick { incarnation: current.incarnation, condemned: current.condemned, ..tick(head) };
            let changed = *current != tick && !current.closed;
            if changed {
                *current = tick;
            }
            changed
        });
    }

    /// Replaces the state by another one, as after a snapshot was installed.
    pub(crate) fn replace(&self, engine: Arc<dyn Engine>, head: &StateHead) {
        let before = std::mem::replace(&mut *self.engine.write(), engine);
        self.retired.close(before);
        {
            let mut ring = self.ring.write();
            ring.revisions.clear();
            ring.bytes = 0;
            if !mutant::on("snapshot-unnoticed") {
                ring.covers_from = head.revision + 1;
            }
        }
        let ended = self.soundness.clear();
        self.ticks.send_modify(|tick| {
            tick.condemned = false;
            tick.incarnation += u64::from(ended.is_some_and(|fault| fault.kind == FaultKind::Diverged));
        });
        self.publish(head, Vec::new());
    }

    pub(crate) fn close(&self) {
        self.ticks.send_modify(|tick| tick.closed = true);
    }

    /// See [`super::StateMachine::release`].
    pub(crate) fn release(&self) -> Arc<dyn Engine> {
        std::mem::replace(&mut *self.engine.write(), Arc::new(ClosedEngine))
    }

    pub(crate) fn watch(self: &Arc<Self>, key: Bytes, range_end: Bytes, start_revision: i64) -> Result<Watch, StoreError> {
        if key.is_empty() {
            return Err(StoreError::Invalid("key is not provided".into()));
        }
        self.check()?;
        let ticks = self.subscribe();
        let now = *ticks.borrow();
        if start_revision > 0 && start_revision < now.compact_revision && !mutant::on("compaction-unnoticed") {
            return Err(StoreError::Compacted { compact_revision: now.compact_revision });
        }
        let next = if start_revision > 0 { start_revision } else { now.revision + 1 };
        self.counters.watchers.fetch_add(1, Ordering::Relaxed);
        let range = KeyRange::new(&key, &range_end);
        Ok(Watch { range, next, epoch: now.epoch, incarnation: now.incarnation, ticks, hub: self.clone(), slow: false })
    }
}

// === impl Retired ===

impl Retired {
    /// Closing waits for the engine's background work, which may take long on a failing disk: a thread of its own does it.
    fn close(&self, engine: Arc<dyn Engine>) {
        let mut threads = self.0.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(std::thread::spawn(move || drop(engine)));
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        for thread in self.0.get_mut().drain(..) {
            let _ = thread.join();
        }
    }
}

// === impl Ring ===

impl Ring {
    fn push(&mut self, revision: i64, events: Vec<etcd::Event>) {
        let bytes = events.iter().map(event_bytes).sum();
        self.bytes += bytes;
        self.revisions.push_back(Recent { revision, events: events.into(), bytes });
        while self.bytes > self.max_bytes
            && let Some(oldest) = self.revisions.pop_front()
        {
            self.bytes -= oldest.bytes;
            if !mutant::on("ring-overflow") {
                self.covers_from = oldest.revision + 1;
            }
        }
    }

    /// The revisions from `next` to `last`; none if some of them are gone.
    fn since(&self, next: i64, last: i64) -> Option<Vec<Recent>> {
        if next < self.covers_from {
            return None;
        }
        let from = self.revisions.partition_point(|recent| recent.revision < next);
        Some(self.revisions.range(from..).take_while(|recent| recent.revision <= last).cloned().collect())
    }
}

// === impl Watch ===

impl Watch {
    /// The next revision this watch needs.
    #[must_use]
    pub fn next_revision(&self) -> i64 {
        self.next
    }

    /// Waits for the state to pass the next revision and returns what happened. Safe to cancel.
    pub async fn next(&mut self) -> Result<WatchBatch, WatchError> {
        loop {
            let now = *self.ticks.borrow_and_update();
            if now.closed {
                return Err(WatchError::Shutdown);
            }
            if now.epoch != self.epoch || now.incarnation != self.incarnation {
                return Err(WatchError::Reset);
            }
            // While the state is being rebuilt a watch waits: it goes on where it was.
            if now.revision >= self.next && !now.condemned {
                match self.read(now) {
                    Err(WatchError::Store(StoreError::Corrupt(reason))) => {
                        self.hub.condemn(Fault { kind: FaultKind::Damaged, reason: reason.into() });
                        continue;
                    }
                    batch => {
                        let batch = batch?;
                        self.next = batch.revision + 1;
                        self.hub.counters.events.fetch_add(batch.events.len() as u64, Ordering::Relaxed);
                        return Ok(batch);
                    }
                }
            }
            self.ticks.changed().await.map_err(|_| WatchError::Shutdown)?;
        }
    }

    fn read(&mut self, now: Tick) -> Result<WatchBatch, WatchError> {
        let recent = self.hub.ring.read().since(self.next, now.revision);
        self.note_slow(recent.is_none());
        let Some(recent) = recent else { return self.read_history() };
        // One transaction, all of it watched: share what the ring holds.
        if let [only] = recent.as_slice()
            && only.events.iter().all(|event| self.wants(event))
        {
            return Ok(WatchBatch { revision: now.revision, events: only.events.clone() });
        }
        let events = recent.iter().flat_map(|recent| recent.events.iter()).filter(|event| self.wants(event)).cloned().collect();
        Ok(WatchBatch { revision: now.revision, events })
    }

    fn note_slow(&mut self, slow: bool) {
        if self.slow != slow {
            self.hub.counters.slow_watchers.fetch_add(if slow { 1 } else { -1 }, Ordering::Relaxed);
        }
        self.slow = slow;
    }

    fn wants(&self, event: &etcd::Event) -> bool {
        event.kv.as_ref().is_some_and(|kv| self.range.contains(&kv.key))
    }

    fn read_history(&self) -> Result<WatchBatch, WatchError> {
        let engine = self.hub.engine();
        let view = engine.view();
        let head = read::head(view.as_ref())?.unwrap_or_default();
        if head.epoch != self.epoch {
            return Err(WatchError::Reset);
        }
        if self.next < head.compact_revision && !mutant::on("compaction-unnoticed") {
            return Err(WatchError::Compacted { compact_revision: head.compact_revision });
        }
        Ok(history(view.as_ref(), &head, &self.range, self.next)?)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.note_slow(false);
        self.hub.counters.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The events of `range` from revision `from` on, as far as one batch goes.
fn history(read: &dyn Read, head: &StateHead, range: &KeyRange, from: i64) -> Result<WatchBatch, StoreError> {
    let mut events = Vec::new();
    let mut reached = head.revision;
    let (mut changes, mut bytes, mut last) = (0usize, 0usize, from - 1);
    let mut cursor = read.cursor(Table::Change, &change_key(from, 0), None)?;
    while let Some((key, record)) = cursor.entry() {
        let revision = change_revision(key)?;
        let full = changes >= MAX_BATCH_CHANGES || events.len() >= MAX_BATCH_EVENTS || bytes >= MAX_BATCH_BYTES;
        if full && revision != last {
            reached = last;
            break;
        }
        last = revision;
        changes += 1;
        let change: ChangeRecord = read::decode("change", record)?;
        if range.contains(&change.key) {
            let event = event(read, revision, change)?;
            bytes += event_bytes(&event);
            events.push(event);
        }
        cursor.advance()?;
    }
    Ok(WatchBatch { revision: reached, events: events.into() })
}

fn event(read: &dyn Read, revision: i64, change: ChangeRecord) -> Result<etcd::Event, StoreError> {
    let kv = if change.deleted {
        etcd::KeyValue { key: change.key.clone(), mod_revision: revision, ..Default::default() }
    } else {
        read::written_at(read, &change.key, revision)?
            .ok_or_else(|| StoreError::Corrupt(format!("revision {revision} has a change without a version")))?
    };
    // At the compaction floor itself the version before is gone.
    let prev_kv = match change.previous_revision {
        _ if mutant::on("previous-forgotten") => None,
        0 => None,
        previous => read::written_at(read, &change.key, previous)?,
    };
    let kind = if change.deleted { EventType::Delete } else { EventType::Put };
    Ok(etcd::Event { r#type: kind as i32, kv: Some(kv), prev_kv })
}
