//! The replicated log and the vote, on the log engine.
//!
//! Owns openraft's `RaftLogStorage` contract: consecutive entries, serialized writes, and above all design D10:
//! a vote or an append is reported only after it has been synced. One writer thread does all writes; what has
//! queued up while it synced goes into the next batch, so one sync serves many appends (group commit).
//! Recent entries stay in memory for replication and apply; older ones are read back from the engine.
//!
//! Opening reads the whole log: every record is checksummed and the indexes must be consecutive. Damage is
//! an error, never a truncation, because what was damaged may have been acknowledged (design D8).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::engine::{Durability, Engine, Table, WriteBatch};
use crate::error::StoreError;
use crate::mvcc::EntryId;
use crate::types::{Entry, LogId, TypeConfig, Vote, log_id};

mod record;
mod sizes;
mod writer;

pub use sizes::LogKept;
pub(crate) use sizes::LogSizes;
use writer::{Op, Writer};

/// Entries kept in memory for readers.
const CACHE_BYTES: usize = 16 << 20;
/// What one replication read returns at most (and at least one entry).
const READ_BYTES: usize = 4 << 20;
/// Writes that may wait for the writer thread.
const QUEUE: usize = 4096;

/// Writes the beginning of a log whose entries up to `at` are in a snapshot: `node_id` has seen the term, and voted for
/// itself in it.
pub(crate) fn begin_after(engine: &dyn Engine, at: EntryId, node_id: u64) -> Result<(), StoreError> {
    let mut batch = WriteBatch::new();
    batch.put(Table::LogMeta, record::VOTE, record::encode_vote(&Vote::new(at.term, node_id)));
    batch.put(Table::LogMeta, record::PURGED, record::encode_mark(&log_id(at.term, at.index)));
    engine.write(batch, Durability::Synced)
}

/// The log of one member. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    /// Before `writer`: the thread ends when the last sender is gone.
    ops: mpsc::Sender<Op>,
    writer: Arc<WriterThread>,
    /// The last index that the state machine has durably applied, where there is one to wait for.
    durable_applied: Option<watch::Receiver<u64>>,
}

/// The thread that writes, which no longer runs when [`LogStore::close`] or the last handle's drop returns: the engine is free then.
#[derive(Default)]
struct WriterThread(Mutex<Option<JoinHandle<()>>>);

struct Shared {
    engine: Arc<dyn Engine>,
    index: RwLock<Index>,
    /// Entries up to here are on disk.
    synced: Arc<AtomicU64>,
    /// Where the log ends, on disk or not.
    end: watch::Sender<Option<u64>>,
}

/// What is known of the log without reading it.
#[derive(Default)]
struct Index {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Index of the first entry, where there is one.
    first: u64,
    recent: BTreeMap<u64, (Entry, usize)>,
    recent_bytes: usize,
    /// Entries up to here are in the engine and may leave memory.
    written: u64,
    /// Whether the log holds the commit mark under the key of an earlier release.
    has_old_mark: bool,
    /// Still used after the log was closed; keeps no part of the log open.
    sizes: Arc<Mutex<LogSizes>>,
}

// === impl LogStore ===

impl LogStore {
    /// Opens and verifies the log in `engine`, and starts the writer thread.
    ///
    /// # Errors
    /// `Corrupt` for any damage: this member must not vote with it.
    pub fn open(engine: Arc<dyn Engine>, durable_applied: Option<watch::Receiver<u64>>) -> Result<LogStore, StoreError> {
        let (log, queue) = LogStore::verified(engine, durable_applied)?;
        let writer = Writer::new(log.shared.clone());
        let writer = std::thread::Builder::new()
            .name("trireme-log".into())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::io("log writer", error))?;
        *log.writer.0.lock() = Some(writer);
        Ok(log)
    }

    /// The same with a task of the current runtime as the writer, for a simulation, which has but one thread.
    ///
    /// # Errors
    /// As [`LogStore::open`].
    pub fn open_on_task(engine: Arc<dyn Engine>, durable_applied: Option<watch::Receiver<u64>>) -> Result<LogStore, StoreError> {
        let (log, queue) = LogStore::verified(engine, durable_applied)?;
        tokio::spawn(Writer::new(log.shared.clone()).run_on_task(queue));
        Ok(log)
    }

    fn verified(
        engine: Arc<dyn Engine>,
        durable_applied: Option<watch::Receiver<u64>>,
    ) -> Result<(LogStore, mpsc::Receiver<Op>), StoreError> {
        let index = record::verify(engine.as_ref())?;
        let (synced, end) = (Arc::new(AtomicU64::new(index.written)), watch::Sender::new(index.end()));
        let shared = Arc::new(Shared { engine, synced, end, index: RwLock::new(index) });
        let (ops, queue) = mpsc::channel(QUEUE);
        Ok((LogStore { shared, ops, writer: Arc::default(), durable_applied }, queue))
    }

    /// Whether neither a vote nor an entry was ever written.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        let index = self.shared.index.read();
        index.vote.is_none() && index.last.is_none() && index.purged.is_none()
    }

    /// The last entry, or the last purged one.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.shared.index.read().last_or_purged()
    }

    /// The last purged entry.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        self.shared.index.read().purged
    }

    /// Entries up to here are on disk, as that changes.
    pub(crate) fn synced(&self) -> Arc<AtomicU64> {
        self.shared.synced.clone()
    }

    /// Where the log ends, as that changes, on disk or not.
    pub(crate) fn end(&self) -> watch::Receiver<Option<u64>> {
        self.shared.end.subscribe()
    }

    /// How large the parts of the log are.
    pub(crate) fn sizes(&self) -> Arc<Mutex<LogSizes>> {
        self.shared.index.read().sizes.clone()
    }

    /// A weak handle of the engine, for the upkeep of its space.
    pub(crate) fn engine(&self) -> Weak<dyn Engine> {
        Arc::downgrade(&self.shared.engine)
    }

    /// Ends the writer thread after everything queued has been written. The engine is free afterwards once
    /// openraft has dropped its own handles.
    pub fn close(self) {
        let LogStore { writer, ops, .. } = self;
        // Best effort: the thread ends by itself when the last sender goes.
        let _ = ops.try_send(Op::Stop);
        drop(ops);
        writer.join();
    }

    async fn submit(&self, op: impl FnOnce(oneshot::Sender<Result<(), StoreError>>) -> Op) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(op(reply)).await.map_err(|_| io::Error::from(StoreError::Shutdown))?;
        answer.await.map_err(|_| io::Error::from(StoreError::Shutdown))?.map_err(io::Error::from)
    }

    /// Entries of `[start, end)` that exist, up to `limit_bytes` (but at least one).
    async fn read(&self, start: u64, end: u64, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let (start, end, cached) = {
            let index = self.shared.index.read();
            let start = start.max(index.first);
            let end = end.min(index.last.map_or(0, |id| id.index() + 1));
            if start >= end {
                return Ok(Vec::new());
            }
            let first_cached = index.recent.keys().next().copied().unwrap_or(u64::MAX);
            let from_cache: Vec<(Entry, usize)> =
                index.recent.range(start.max(first_cached.min(end))..end).map(|(_, entry)| entry.clone()).collect();
            (start, end, from_cache)
        };
        let first_cached = cached.first().map_or(end, |(entry, _)| entry.log_id.index());
        let mut entries = Vec::new();
        let mut bytes = 0;
        if start < first_cached {
            let shared = self.shared.clone();
            (entries, bytes) = blocking(move || shared.read_engine(start, first_cached, limit_bytes)).await??;
            if (entries.len() as u64) < first_cached - start {
                return self.without_purged(entries, start);
            }
        }
        for (entry, size) in cached {
            if bytes + size > limit_bytes && !entries.is_empty() {
                break;
            }
            bytes += size;
            entries.push(entry);
        }
        Ok(entries)
    }

    /// A short read is right at the limit or where a purge ran meanwhile; a hole is damage.
    fn without_purged(&self, entries: Vec<Entry>, start: u64) -> io::Result<Vec<Entry>> {
        let purged = self.shared.index.read().purged.map_or(0, |id| id.index() + 1);
        let first = entries.first().map_or(start, |entry| entry.log_id.index());
        if first > start.max(purged) {
            return Err(StoreError::Corrupt(format!("log entries {start} to {first} are missing")).into());
        }
        Ok(entries)
    }
}

// === impl WriterThread ===

impl WriterThread {
    fn join(&self) {
        let handle = self.0.lock().take();
        // The writer drops the callbacks of others, and may so drop the last handle itself.
        if let Some(handle) = handle.filter(|handle| handle.thread().id() != std::thread::current().id()) {
            let _ = handle.join();
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.join();
    }
}

// === impl Shared ===

impl Shared {
    fn read_engine(&self, start: u64, end: u64, limit_bytes: usize) -> Result<(Vec<Entry>, usize), StoreError> {
        let view = self.engine.view();
        let mut cursor = view.cursor(Table::Entry, &start.to_be_bytes(), Some(&end.to_be_bytes()))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        while let Some((_, value)) = cursor.entry() {
            bytes += value.len();
            if bytes > limit_bytes && !entries.is_empty() {
                break;
            }
            let entry = record::decode_entry(Bytes::copy_from_slice(value))?;
            if entries.last().is_some_and(|last| last.log_id.index() + 1 != entry.log_id.index()) {
                return Err(StoreError::Corrupt(format!("the log has a hole before entry {}", entry.log_id.index())));
            }
            entries.push(entry);
            cursor.advance()?;
        }
        Ok((entries, bytes))
    }
}

// === impl Index ===

impl Index {
    fn last_or_purged(&self) -> Option<LogId> {
        self.last.or(self.purged)
    }

    /// Where the log ends.
    fn end(&self) -> Option<u64> {
        self.last_or_purged().map(|id| id.index())
    }

    fn push(&mut self, entry: Entry, size: usize) {
        if self.last.is_none() {
            self.first = entry.log_id.index();
        }
        self.last = Some(entry.log_id);
        self.sizes.lock().push(entry.log_id.index(), size, Instant::now());
        self.recent_bytes += size;
        self.recent.insert(entry.log_id.index(), (entry, size));
    }

    /// Forgets entries that are in the engine, oldest first, down to the limit.
    fn shrink(&mut self) {
        while self.recent_bytes > CACHE_BYTES {
            match self.recent.first_entry() {
                Some(first) if *first.key() <= self.written => self.recent_bytes -= first.remove().1,
                _ => break,
            }
        }
    }

    fn truncate_from(&mut self, from: u64, last: Option<LogId>) {
        for (_, (_, size)) in self.recent.split_off(&from) {
            self.recent_bytes -= size;
        }
        self.written = self.written.min(from.saturating_sub(1));
        self.last = last;
        self.sizes.lock().truncate_from(from);
    }

    fn purge_to(&mut self, upto: LogId) {
        let kept = self.recent.split_off(&(upto.index() + 1));
        for (_, (_, size)) in std::mem::replace(&mut self.recent, kept) {
            self.recent_bytes -= size;
        }
        if self.last.is_some_and(|last| last.index() <= upto.index()) {
            self.last = None;
        }
        self.sizes.lock().purge_to(upto.index());
        self.first = self.first.max(upto.index() + 1);
        self.purged = self.purged.max(Some(upto));
    }
}

// === openraft ===

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    /// In pieces, so that a member that is far behind does not load all it has to apply at once.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        let pieces = futures::stream::unfold(Some(start), move |next| {
            let log = log.clone();
            async move {
                let next = next.filter(|next| *next < end)?;
                match log.read(next, end, READ_BYTES).await {
                    Ok(entries) => {
                        let after = entries.last().map(|last| last.log_id.index() + 1)?;
                        let piece: Vec<_> = entries.into_iter().map(Ok).collect();
                        Some((futures::stream::iter(piece), Some(after)))
                    }
                    Err(error) => Some((futures::stream::iter(vec![Err(error)]), None)),
                }
            }
        });
        Box::pin(pieces.flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.index.read().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES).await
    }
}

/// `[start, end)` of a range.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let index = self.shared.index.read();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last_or_purged() })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.submit(|reply| Op::Vote { vote, reply }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Written with a later append: a sync or a write of its own for each commit gains nothing. After a crash the mark is
        // a little behind, and the leader sends the commit index.
        self.shared.index.write().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.index.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let encoded: Vec<(Entry, Bytes)> = entries.into_iter().map(|entry| (entry.clone(), record::encode_entry(&entry))).collect();
        let mut records = Vec::with_capacity(encoded.len());
        {
            // Readable as soon as this returns, durable when the callback is called.
            let mut index = self.shared.index.write();
            for (entry, bytes) in encoded {
                records.push((entry.log_id.index(), bytes.clone()));
                index.push(entry, bytes.len());
            }
            self.shared.end.send_replace(index.end());
        }
        self.ops.send(Op::Append { records, callback }).await.map_err(|_| io::Error::from(StoreError::Shutdown))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let mut from = last_log_id.map_or(0, |id| id.index() + 1);
        if crate::mutant::on("truncates-too-much") {
            from = from.saturating_sub(1);
        }
        {
            let mut index = self.shared.index.write();
            if index.last_or_purged().is_none_or(|last| last.index() < from) {
                return Ok(());
            }
            let last = last_log_id.filter(|id| index.purged.is_none_or(|purged| purged.index() < id.index()));
            index.truncate_from(from, last);
            self.shared.end.send_replace(index.end());
        }
        self.submit(|reply| Op::Truncate { from, reply }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        // Invariant: what leaves the log is durable in the state (design D10).
        if let Some(mut durable) = self.durable_applied.clone() {
            durable.wait_for(|applied| *applied >= log_id.index()).await.map_err(|_| io::Error::from(StoreError::Shutdown))?;
        }
        self.shared.index.write().purge_to(log_id);
        // Not waited for: Raft's core would stand still for as long as a sync takes, and a purge that a crash undoes is
        // done again. One that fails poisons the log, as any write does.
        self.ops.send(Op::Purge { upto: log_id }).await.map_err(|_| io::Error::from(StoreError::Shutdown))
    }
}

#[cfg(test)]
mod tests;
