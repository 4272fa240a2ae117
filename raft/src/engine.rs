//! The seam to the disk: ordered tables of bytes, atomic write batches, consistent views.
//!
//! Owns the traits and the key space; knows neither Raft nor revisions. Three engines stand behind it:
//! [`wal::Wal`], which holds a log and nothing else; `rocks::RocksEngine` for the state, the only file of the project that uses its crate; and
//! [`memory::MemoryEngine`], a double of both that can crash.
//!
//! A key of a [`Table`] is stored as one byte of table number and the key itself, all in one key space, so
//! that one batch over several tables is atomic without further ado and one small memtable serves all.

use std::path::Path;

use bytes::Bytes;

use crate::StoreError;

pub(crate) mod closed;
pub mod memory;
pub(crate) mod metered;
#[cfg(feature = "rocksdb")]
pub mod rocks;
#[cfg(test)]
mod tests;
pub mod wal;

/// A table. The numbers are part of the data directory's format and are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Table {
    /// State: head record.
    Head = 1,
    /// State: key → current version.
    Live = 2,
    /// State: key, descending revision → past version.
    Past = 3,
    /// State: key, descending revision → value.
    Value = 4,
    /// State: revision, ordinal → change.
    Change = 5,
    /// State: lease id → lease.
    Lease = 6,
    /// State: lease id, key → nothing.
    LeaseKey = 7,
    /// State: name → compaction holder.
    Holder = 8,
    /// State: member id → member.
    Member = 9,
    /// State: name → sealed key.
    Sealed = 10,
    /// State: log index modulo the window → proposal and its result.
    Proposal = 13,
    /// Log: index → entry.
    Entry = 32,
    /// Log: vote, purge mark, committed mark and the like.
    LogMeta = 33,
}

/// How safe a write is when the call returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// On disk: it survives power loss.
    Synced,
    /// In memory until the next [`Engine::flush`]; a crash may lose it, but only whole batches from the end.
    Buffered,
    /// The same, for a writer that must not wait: `Busy` where it would have to.
    Prompt,
}

/// An ordered key-value engine.
///
/// To ensure correctness, an implementation must
/// - apply a batch as a whole or not at all, also across a crash;
/// - after a crash show a prefix of the batches written, with every synced or flushed one;
/// - give views that later writes do not change.
///
/// No method has a body of its own: an engine around another one that forgot to pass a call on would hide what the inner
/// one says.
pub trait Engine: Send + Sync + 'static {
    /// The engine's content as of now.
    fn view(&self) -> Box<dyn Read + '_>;
    /// Writes `batch` atomically.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError>;
    /// Makes every write so far durable.
    fn flush(&self) -> Result<(), StoreError>;
    /// Writes a copy of the whole content into `directory`, which must not exist yet, and returns the value of `key` in that copy. Writes
    /// may go on meanwhile: the copy holds every batch that had been written before the call, and those after it up to some batch. The files
    /// are not necessarily fsynced.
    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// How long the caller of a synced write has to wait first. Only an engine of a simulation, whose writes take no time, returns more
    /// than zero. Heeded only where the log is written by a task.
    fn sync_delay(&self) -> std::time::Duration;
    /// Returns unused disk space to the file system. May take long.
    fn reclaim(&self) -> Result<(), StoreError>;
    /// Roughly how many bytes the engine holds on disk.
    fn size_bytes(&self) -> u64;
    /// Roughly how many of them are in use.
    fn live_bytes(&self) -> u64;
}

/// Something that can be read: an engine's view, or a view under uncommitted writes.
pub trait Read {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// A cursor over `[start, end)`, standing on the first entry; without `end` to the end of the table.
    fn cursor<'a>(&'a self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<Box<dyn Cursor + 'a>, StoreError>;
    /// The entry with the greatest key of the table.
    fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Bytes)>, StoreError>;
}

/// A forward cursor.
pub trait Cursor {
    /// Key (without the table) and value it stands on; none at the end.
    fn entry(&self) -> Option<(&[u8], &[u8])>;
    /// To the next entry.
    fn advance(&mut self) -> Result<(), StoreError>;
    /// To the first entry at or after `key`, which must not be before the current one.
    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError>;
}

/// One write of a batch, on full keys (table number first).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Sets a key.
    Put(Vec<u8>, Bytes),
    /// Removes a key.
    Delete(Vec<u8>),
    /// Removes the keys of `[start, end)`.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// Writes that happen together.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct WriteBatch {
    writes: Vec<Write>,
}

// === impl WriteBatch ===

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Sets `key`.
    pub fn put(&mut self, table: Table, key: &[u8], value: impl Into<Bytes>) {
        self.writes.push(Write::Put(full_key(table, key), value.into()));
    }

    /// Removes `key`.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.writes.push(Write::Delete(full_key(table, key)));
    }

    /// Removes the keys of `[start, end)`, or to the table's end.
    pub fn delete_range(&mut self, table: Table, start: &[u8], end: Option<&[u8]>) {
        self.writes.push(Write::DeleteRange(full_key(table, start), full_end(table, end)));
    }

    /// The writes, in order.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The writes, in order.
    #[must_use]
    pub fn into_writes(self) -> Vec<Write> {
        self.writes
    }

    /// Whether nothing would be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn push(&mut self, write: Write) {
        self.writes.push(write);
    }
}

pub(crate) fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(table as u8);
    full.extend_from_slice(key);
    full
}

/// The exclusive upper bound of a range of `table`.
pub(crate) fn full_end(table: Table, end: Option<&[u8]>) -> Vec<u8> {
    match end {
        Some(end) => full_key(table, end),
        None => vec![table as u8 + 1],
    }
}
