//! The log's engine: a write-ahead log of our own, in segments that are allocated and zeroed ahead.
//!
//! Owns the folder of a member's log. It is an [`Engine`] of the two tables of a log, with the writes that a log makes: entries are appended in
//! order, cut off at the end (truncation) or at the beginning (purge), and a few small marks are set. Anything else is refused. It knows
//! neither Raft nor what an entry holds.
//!
//! A synced write is one record, one `pwrite` and one `fdatasync` into space that was written before, so the file system has nothing of its own to
//! commit. Entries stay on disk only; in memory is where to look for them (a mark every [`MARK_BYTES`]), and the marks.
//!
//! # On disk
//!
//! ```text
//! log/segments/<16 hex digits>.wal    segments, numbered without gaps; the last one may be an empty spare
//! log/segments/<...>.wal.new          a spare in the making; removed at start
//! ```
//!
//! [`layout`] has the format of a segment, [`record`] that of a record, [`recovery`] how a torn tail is told from damage. The folder of a release that
//! kept its log in RocksDB is carried over once (`convert.rs`).
//!
//! What must hold:
//! - At most one record of a log can be torn: a record is written only after the one before it was synced. (Buffered entries,
//!   which only planted bugs write, are the exception.)
//! - A segment goes only when a synced record says that its entries are purged; each segment begins with all marks.
//! - After a write or a sync has failed, every later one fails: what the disk holds is unknown until the log is opened again, and opening
//!   writes the last record anew, because the page cache may show what never reached the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::appender::Appender;
use self::contents::Contents;
use self::segment::Segments;
use self::view::WalView;
use super::{Durability, Engine, Read, Table, WriteBatch};
use crate::StoreError;

mod appender;
mod contents;
#[cfg(feature = "rocksdb")]
mod convert;
mod layout;
mod record;
mod recovery;
mod segment;
mod spare;
#[cfg(test)]
mod tests;
mod view;

/// Folder of the segments, in that of the log.
const SEGMENTS: &str = "segments";
/// A place in the log is remembered at least every so many bytes.
const MARK_BYTES: u64 = 64 << 10;

/// How large segments are.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// The first one. Each further one is twice as large as the one before.
    pub first_segment_bytes: u64,
    /// The largest, unless one record needs more.
    pub segment_bytes: u64,
}

/// An [`Engine`] of a log, on a folder.
pub struct Wal {
    appender: Mutex<Appender>,
    published: Arc<RwLock<Published>>,
}

/// What readers see.
struct Published {
    contents: Arc<Contents>,
    segments: Arc<Segments>,
}

// === impl WalOptions ===

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { first_segment_bytes: 1 << 20, segment_bytes: 16 << 20 }
    }
}

// === impl Wal ===

impl Wal {
    /// Opens or creates the log in `directory`, checks every record of it, and repairs a torn tail.
    ///
    /// # Errors
    /// `Corrupt` for damage, `Io` and `NoSpace` of the file system.
    pub fn open(directory: &Path, options: WalOptions) -> Result<Wal, StoreError> {
        let folder = directory.join(SEGMENTS);
        if !folder.exists() {
            #[cfg(feature = "rocksdb")]
            convert::carry_over(directory, &folder, options)?;
            #[cfg(not(feature = "rocksdb"))]
            create(&folder, options)?;
        }
        #[cfg(feature = "rocksdb")]
        convert::remove_old(directory, &folder)?;
        Wal::open_segments(folder, options)
    }

    fn open_segments(folder: PathBuf, options: WalOptions) -> Result<Wal, StoreError> {
        let recovered = recovery::recover(&folder)?;
        let published = Arc::new(RwLock::new(Published { contents: Arc::new(recovered.contents), segments: Arc::new(recovered.segments) }));
        let appender = Appender::new(folder, options, recovered.end, published.clone());
        Ok(Wal { appender: Mutex::new(appender), published })
    }
}

/// Makes the folder of an empty log. It gets its name when it is complete.
fn create(folder: &Path, options: WalOptions) -> Result<(), StoreError> {
    let new = empty_beside(folder)?;
    segment::make(&new, 1, options.first_segment_bytes)?;
    put_in_place(&new, folder)
}

/// An empty folder that will be renamed to `folder`.
fn empty_beside(folder: &Path) -> Result<PathBuf, StoreError> {
    let new = folder.with_extension("new");
    let made = crate::snapshot::remove_if_present(&new).and_then(|()| std::fs::create_dir_all(&new));
    made.map_err(|error| StoreError::io(new.display(), error))?;
    Ok(new)
}

fn put_in_place(new: &Path, folder: &Path) -> Result<(), StoreError> {
    let rename = || {
        crate::snapshot::sync_tree(new)?;
        std::fs::rename(new, folder)?;
        folder.parent().map_or(Ok(()), crate::snapshot::sync_dir)
    };
    rename().map_err(|error| StoreError::io(folder.display(), error))
}

impl Engine for Wal {
    fn view(&self) -> Box<dyn Read + '_> {
        let published = self.published.read();
        Box::new(WalView::new(published.contents.clone(), published.segments.clone()))
    }

    /// Buffered writes without entries stay in memory until the next record: a crash may lose them, and nothing after them.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        self.appender.lock().write(batch, durability)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.appender.lock().flush()
    }

    fn checkpoint(&self, _: &Path, _: Table, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Invalid("a log is not copied: a snapshot is made of the state".into()))
    }

    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.appender.lock().flush()
    }

    fn size_bytes(&self) -> u64 {
        self.published.read().segments.size_bytes()
    }

    fn live_bytes(&self) -> u64 {
        let published = self.published.read();
        published.contents.first_place().map_or(0, |place| published.segments.size_bytes_from(place.segment))
    }
}
