//! The engine on RocksDB. No other file of the project uses its crate.
//!
//! Two roles (designs D10 and D14):
//!
//! - **log**, as releases of format 1 kept it; it is only read, to be carried over ([`super::wal`]). Every write went through RocksDB's write-ahead log
//!   and was synced. It is read back in the mode that tolerates a torn last record (a write that was not acknowledged), after [`journal`] has made sure
//!   that what looks torn is. RocksDB's default would silently drop everything after a flipped bit.
//! - **state**: no write-ahead log. Writes live in the memtable until a flush makes them durable; what a crash takes
//!   is replayed from the Raft log, because `last_applied` is in the same batch as the data.
//!
//! Memory is kept small: the block cache also holds index and filter blocks.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, DBRecoveryMode, FlushOptions, LogLevel, Options,
    ReadOptions, Snapshot, WriteOptions,
};

use super::{Cursor, Durability, Engine, Read, Table, Write, WriteBatch, full_end, full_key};
use crate::StoreError;

mod journal;

/// How long a write of the state waits for flushes to catch up. They fall behind for a second at most, unless the disk is full.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// The same for a write of the log, whose failure costs a Raft instance: a slow disk is waited for.
const LOG_STALL_LIMIT: Duration = Duration::from_secs(30);
/// Tables of the log's first level at which its writes stop.
const LOG_STOP_TABLES: i32 = 36;
const STALL_PAUSE: Duration = Duration::from_millis(2);

/// What an instance holds, and so how it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Votes and entries: synced.
    Log,
    /// The state machine: flushed.
    State,
}

/// Memory and file limits. The block cache is shared by every engine opened with clones of the same options.
#[derive(Clone)]
pub struct RocksOptions {
    /// One memtable; RocksDB may hold two.
    pub write_buffer_bytes: usize,
    /// Open table files.
    pub max_open_files: i32,
    cache: Cache,
}

/// An [`Engine`] on a directory.
pub struct RocksEngine {
    db: DB,
    role: Role,
    path: PathBuf,
}

struct RocksView<'a> {
    snapshot: Snapshot<'a>,
}

struct RocksCursor<'a> {
    iterator: DBRawIterator<'a>,
    table: Table,
}

fn failed(path: &Path, error: &rocksdb::Error) -> StoreError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StoreError::Corrupt(format!("{}: {error}", path.display())),
        _ if error.as_ref().contains("No space left on device") => StoreError::NoSpace,
        _ => StoreError::Io(format!("{}: {error}", path.display())),
    }
}

// === impl RocksOptions ===

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions::with_cache_bytes(12 << 20)
    }
}

impl RocksOptions {
    /// With a block cache of its own.
    #[must_use]
    pub fn with_cache_bytes(bytes: usize) -> RocksOptions {
        RocksOptions { write_buffer_bytes: 4 << 20, max_open_files: 128, cache: Cache::new_lru_cache(bytes) }
    }
}

// === impl RocksEngine ===

impl RocksEngine {
    /// Opens or creates the instance in `path`.
    pub fn open(path: &Path, role: Role, options: &RocksOptions) -> Result<RocksEngine, StoreError> {
        journal::check_directory(path)?;
        let db = DB::open(&db_options(role, options), path).map_err(|error| match failed(path, &error) {
            // A file that the manifest names and that is not there.
            StoreError::Io(text) if text.contains("No such file") => StoreError::Corrupt(text),
            error => error,
        })?;
        Ok(RocksEngine { db, role, path: path.to_owned() })
    }

    /// Writes, or returns `Busy` where the write would have to wait.
    fn write_promptly(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<(), StoreError> {
        self.db.write_opt(encoded(batch), options).map_err(|error| match error.kind() {
            rocksdb::ErrorKind::Incomplete => StoreError::Busy,
            _ => self.failed(&error),
        })
    }

    /// Writes, waiting for flushes and merges to catch up where they have to, but not for ever.
    fn write_patiently(&self, batch: &WriteBatch, options: &WriteOptions) -> Result<(), StoreError> {
        let limit = match self.role {
            Role::Log => LOG_STALL_LIMIT,
            Role::State => STALL_LIMIT,
        };
        let deadline = Instant::now() + limit;
        loop {
            match self.db.write_opt(encoded(batch), options) {
                Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete && Instant::now() < deadline => {
                    std::thread::sleep(STALL_PAUSE)
                }
                Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => return Err(StoreError::NoSpace),
                result => return result.map_err(|error| self.failed(&error)),
            }
        }
    }

    fn failed(&self, error: &rocksdb::Error) -> StoreError {
        failed(&self.path, error)
    }

    fn flush_memtable(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(|error| self.failed(&error))
    }
}

/// A batch as RocksDB takes it.
fn encoded(batch: &WriteBatch) -> rocksdb::WriteBatch {
    let mut writes = rocksdb::WriteBatch::default();
    for write in batch.writes() {
        match write {
            Write::Put(key, value) => writes.put(key, value),
            Write::Delete(key) => writes.delete(key),
            Write::DeleteRange(start, end) if start < end => writes.delete_range(start, end),
            Write::DeleteRange(..) => {}
        }
    }
    writes
}

/// The value of one key of a checkpoint, which is left as it is.
fn read_copy(directory: &Path, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let names = || -> std::io::Result<BTreeSet<OsString>> { std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect() };
    let io = |error| StoreError::io(directory.display(), error);
    let before = names().map_err(io)?;
    let value = {
        let mut options = Options::default();
        options.set_max_open_files(16);
        options.set_skip_stats_update_on_db_open(true);
        let copy = DB::open_for_read_only(&options, directory, false).map_err(|error| failed(directory, &error))?;
        copy.get(key).map_err(|error| failed(directory, &error))?
    };
    // RocksDB keeps a log of its own wherever it opens something.
    for name in names().map_err(io)?.difference(&before) {
        std::fs::remove_file(directory.join(name)).map_err(io)?;
    }
    Ok(value.map(Bytes::from))
}

fn db_options(role: Role, options: &RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&options.cache);
    // Index and filter in small pieces that share the cache with the data: whole ones would push each other out
    // of a cache this small, and each lookup would read hundreds of kilobytes again.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_bloom_filter(10.0, false);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4096);
    table.set_pin_top_level_index_and_filter(true);
    table.set_optimize_filters_for_memory(true);
    table.set_format_version(5);

    let mut db = Options::default();
    db.create_if_missing(true);
    db.set_block_based_table_factory(&table);
    db.set_compression_type(DBCompressionType::Lz4);
    db.set_write_buffer_size(options.write_buffer_bytes);
    db.set_max_write_buffer_number(2);
    db.set_arena_block_size(256 << 10);
    db.set_max_open_files(options.max_open_files);
    db.set_max_background_jobs(2);
    db.set_target_file_size_base(16 << 20);
    // A compaction writes its result before it deletes its input: a small first level bounds the space that this takes temporarily.
    db.set_max_bytes_for_level_base(64 << 20);
    db.set_max_compaction_bytes(64 << 20);
    db.set_paranoid_checks(true);
    db.set_skip_stats_update_on_db_open(true);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_log_level(LogLevel::Warn);
    db.set_max_log_file_size(1 << 20);
    db.set_keep_log_file_num(2);
    match role {
        Role::Log => {
            db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
            db.set_track_and_verify_wals_in_manifest(true);
            db.set_max_total_wal_size(64 << 20);
            // A write that would be slowed down is refused, as one that would be stopped: nothing is gained by slowing down first.
            db.set_level_zero_slowdown_writes_trigger(LOG_STOP_TABLES);
            db.set_level_zero_stop_writes_trigger(LOG_STOP_TABLES);
            db.set_soft_pending_compaction_bytes_limit(0);
        }
        Role::State => {
            db.set_atomic_flush(true);
            // Compaction of history leaves tombstones that no read passes: files that consist mostly of tombstones are merged away.
            db.add_compact_on_deletion_collector_factory(4096, 2048, 0.5);
        }
    }
    db
}

impl Engine for RocksEngine {
    fn view(&self) -> Box<dyn Read + '_> {
        Box::new(RocksView { snapshot: self.db.snapshot() })
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        // RocksDB then refuses a write that would stall. A stalled write deadlocks on a full disk: it waits for RocksDB's recovery, whose flush
        // waits for the write in progress.
        options.set_no_slowdown(true);
        match self.role {
            Role::Log => options.set_sync(durability == Durability::Synced),
            Role::State => options.disable_wal(true),
        }
        if durability == Durability::Prompt {
            return self.write_promptly(&batch, &options);
        }
        self.write_patiently(&batch, &options)?;
        if self.role == Role::State && durability == Durability::Synced { self.flush_memtable() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), StoreError> {
        match self.role {
            Role::Log => self.db.flush_wal(true).map_err(|error| self.failed(&error)),
            Role::State => self.flush_memtable(),
        }
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        // Flushes the memtable first: without a write-ahead log the copy would lack it.
        self.flush_memtable()?;
        Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(directory)).map_err(|error| self.failed(&error))?;
        read_copy(directory, &full_key(table, key))
    }

    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.flush_memtable()?;
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        let property = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        property("rocksdb.live-sst-files-size") + property("rocksdb.cur-size-all-mem-tables")
    }

    fn live_bytes(&self) -> u64 {
        let property = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        property("rocksdb.estimate-live-data-size") + property("rocksdb.cur-size-active-mem-table")
    }
}

// === impl RocksView ===

impl Read for RocksView<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(full_key(table, key)).map_err(|error| failed(Path::new("read"), &error))?;
        Ok(value.map(Bytes::from))
    }

    fn cursor<'a>(&'a self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(full_end(table, end));
        let mut cursor = RocksCursor { iterator: self.snapshot.raw_iterator_opt(options), table };
        cursor.seek(start)?;
        Ok(Box::new(cursor))
    }

    fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(full_key(table, &[]));
        options.set_iterate_upper_bound(full_end(table, None));
        let mut iterator = self.snapshot.raw_iterator_opt(options);
        iterator.seek_to_last();
        iterator.status().map_err(|error| failed(Path::new("read"), &error))?;
        Ok(iterator.item().map(|(key, value)| (key[1..].to_vec(), Bytes::copy_from_slice(value))))
    }
}

// === impl RocksCursor ===

impl RocksCursor<'_> {
    fn check(&self) -> Result<(), StoreError> {
        self.iterator.status().map_err(|error| failed(Path::new("read"), &error))
    }
}

impl Cursor for RocksCursor<'_> {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.iterator.item().map(|(key, value)| (&key[1..], value))
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        if self.iterator.valid() {
            self.iterator.next();
        }
        self.check()
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.iterator.seek(full_key(self.table, key));
        self.check()
    }
}
