//! The log of a release that kept it in RocksDB, carried over once.
//!
//! The segments are written beside the old files, and get their folder's name when they are complete and on disk. After that the old files count
//! no more, and are removed. A crash before that moment begins anew.

use std::path::{Path, PathBuf};

use super::{SEGMENTS, Wal, WalOptions, create, empty_beside, put_in_place, segment};
use crate::StoreError;
use crate::engine::rocks::{RocksEngine, RocksOptions, Role};
use crate::engine::{Durability, Engine, Table, WriteBatch};

/// Entries are written in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Makes the folder of the segments: out of the old log, where there is one, or empty.
pub(super) fn carry_over(directory: &Path, folder: &Path, options: WalOptions) -> Result<(), StoreError> {
    if old_files(directory)?.is_empty() {
        return create(folder, options);
    }
    tracing::info!(path = %directory.display(), "carrying the log over to its new format");
    let old = RocksEngine::open(directory, Role::Log, &RocksOptions::default())?;
    let new = empty_beside(folder)?;
    segment::make(&new, 1, options.first_segment_bytes)?;
    {
        let wal = Wal::open_segments(new.clone(), options)?;
        copy(&old, &wal)?;
        wal.flush()?;
    }
    drop(old);
    put_in_place(&new, folder)
}

/// Removes what [`carry_over`] has read.
pub(super) fn remove_old(directory: &Path, folder: &Path) -> Result<(), StoreError> {
    debug_assert!(folder.ends_with(SEGMENTS));
    for path in old_files(directory)? {
        std::fs::remove_file(&path).map_err(|error| StoreError::io(path.display(), error))?;
    }
    Ok(())
}

fn copy(old: &RocksEngine, wal: &Wal) -> Result<(), StoreError> {
    let view = old.view();
    let (mut batch, mut bytes) = (WriteBatch::new(), 0);
    for table in [Table::LogMeta, Table::Entry] {
        let mut cursor = view.cursor(table, &[], None)?;
        while let Some((key, value)) = cursor.entry() {
            batch.put(table, key, value.to_vec());
            bytes += value.len();
            if bytes >= PIECE_BYTES {
                wal.write(std::mem::take(&mut batch), Durability::Synced)?;
                bytes = 0;
            }
            cursor.advance()?;
        }
    }
    wal.write(batch, Durability::Synced)
}

/// The files of a RocksDB instance in a folder.
fn old_files(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io(directory.display(), error)),
    };
    let is_old = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let begins = ["MANIFEST-", "OPTIONS-", "CURRENT", "IDENTITY", "LOCK", "LOG"].iter().any(|prefix| name.starts_with(prefix));
        path.is_file() && (begins || [".sst", ".log", ".dbtmp"].iter().any(|suffix| name.ends_with(suffix)))
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_old).collect())
}
