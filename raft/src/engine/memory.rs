//! The engine's double in memory: a `BTreeMap` that can lose what was not made durable.
//!
//! For tests and simulation. It keeps the promises of [`Engine`], counts what a durable engine would have
//! synced, and on [`MemoryEngine::crash`] forgets exactly what a power cut would take.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Cursor, Durability, Engine, Read, Table, Write, WriteBatch, full_end, full_key};
use crate::StoreError;

type Map = BTreeMap<Vec<u8>, Bytes>;

/// Name of the one file of a checkpoint.
const DUMP: &str = "memory.dump";

/// An [`Engine`] in memory.
#[derive(Default)]
pub struct MemoryEngine {
    maps: Mutex<Maps>,
    syncs: AtomicU64,
    sync_delay: Duration,
}

#[derive(Default)]
struct Maps {
    now: Arc<Map>,
    durable: Arc<Map>,
}

struct MemoryView {
    map: Arc<Map>,
}

struct MemoryCursor<'a> {
    map: &'a Map,
    range: btree_map::Range<'a, Vec<u8>, Bytes>,
    entry: Option<(&'a Vec<u8>, &'a Bytes)>,
    table: Table,
    end: Vec<u8>,
}

// === impl MemoryEngine ===

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// An empty engine that says that each sync takes so long.
    #[must_use]
    pub fn with_sync_delay(sync_delay: Duration) -> MemoryEngine {
        MemoryEngine { sync_delay, ..MemoryEngine::default() }
    }

    /// What a restart after a power cut would find.
    #[must_use]
    pub fn crash(&self) -> MemoryEngine {
        let durable = self.maps.lock().durable.clone();
        MemoryEngine { maps: Mutex::new(Maps { now: durable.clone(), durable }), ..MemoryEngine::default() }
    }

    /// How many synced writes and flushes there were.
    #[must_use]
    pub fn sync_count(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Opens what [`Engine::checkpoint`] wrote.
    pub fn open_checkpoint(directory: &Path) -> Result<MemoryEngine, StoreError> {
        let path = directory.join(DUMP);
        let mut bytes = Vec::new();
        std::fs::File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
        let mut rest = Bytes::from(bytes);
        let mut map = Map::new();
        while !rest.is_empty() {
            let key = take(&mut rest)?;
            let value = take(&mut rest)?;
            map.insert(key.to_vec(), value);
        }
        let map = Arc::new(map);
        Ok(MemoryEngine { maps: Mutex::new(Maps { now: map.clone(), durable: map }), ..MemoryEngine::default() })
    }
}

fn take(rest: &mut Bytes) -> Result<Bytes, StoreError> {
    let damaged = || StoreError::Corrupt("memory dump ends in the middle of a record".into());
    if rest.len() < 8 {
        return Err(damaged());
    }
    let mut length = [0; 8];
    length.copy_from_slice(&rest.split_to(8));
    let length = usize::try_from(u64::from_be_bytes(length)).map_err(|_| damaged())?;
    if rest.len() < length {
        return Err(damaged());
    }
    Ok(rest.split_to(length))
}

impl Engine for MemoryEngine {
    fn view(&self) -> Box<dyn Read + '_> {
        Box::new(MemoryView { map: self.maps.lock().now.clone() })
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let mut maps = self.maps.lock();
        let Maps { now, durable } = &mut *maps;
        if durability == Durability::Synced {
            // The two maps are one while nothing is buffered; splitting them here would copy everything.
            *durable = Arc::default();
        }
        let map = Arc::make_mut(now);
        for write in batch.into_writes() {
            match write {
                Write::Put(key, value) => {
                    map.insert(key, value);
                }
                Write::Delete(key) => {
                    map.remove(&key);
                }
                Write::DeleteRange(start, end) => {
                    if start < end {
                        let keys: Vec<Vec<u8>> = map.range(start..end).map(|(key, _)| key.clone()).collect();
                        for key in keys {
                            map.remove(&key);
                        }
                    }
                }
            }
        }
        if durability == Durability::Synced {
            *durable = now.clone();
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut maps = self.maps.lock();
        maps.durable = maps.now.clone();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let map = self.maps.lock().now.clone();
        let failed = |error: std::io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
        std::fs::create_dir(directory).map_err(failed)?;
        let file = std::fs::File::create(directory.join(DUMP)).map_err(failed)?;
        let mut file = std::io::BufWriter::new(file);
        for (key, value) in map.iter() {
            for part in [key.as_slice(), value.as_ref()] {
                file.write_all(&(part.len() as u64).to_be_bytes()).map_err(failed)?;
                file.write_all(part).map_err(failed)?;
            }
        }
        file.flush().map_err(failed)?;
        Ok(map.get(&full_key(table, key)).cloned())
    }

    fn sync_delay(&self) -> Duration {
        self.sync_delay
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn live_bytes(&self) -> u64 {
        self.size_bytes()
    }

    fn size_bytes(&self) -> u64 {
        let map = self.maps.lock().now.clone();
        map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

// === impl MemoryView ===

impl Read for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.map.get(&full_key(table, key)).cloned())
    }

    fn cursor<'a>(&'a self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        let end = full_end(table, end);
        let mut cursor = MemoryCursor { map: &self.map, range: self.map.range(Vec::new()..Vec::new()), entry: None, table, end };
        cursor.seek(start)?;
        Ok(Box::new(cursor))
    }

    fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        let last = self.map.range(full_key(table, &[])..full_end(table, None)).next_back();
        Ok(last.map(|(key, value)| (key[1..].to_vec(), value.clone())))
    }
}

// === impl MemoryCursor ===

impl Cursor for MemoryCursor<'_> {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.entry.map(|(key, value)| (&key[1..], value.as_ref()))
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.entry = self.range.next();
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let start = full_key(self.table, key);
        if start >= self.end {
            self.entry = None;
            self.range = self.map.range(Vec::new()..Vec::new());
            return Ok(());
        }
        self.range = self.map.range(start..self.end.clone());
        self.entry = self.range.next();
        Ok(())
    }
}
