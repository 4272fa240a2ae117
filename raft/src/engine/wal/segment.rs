//! Segment files: making them, reading records, and which there are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::contents::Place;
use super::layout::{self, SECTOR};
use super::record::{self, Change, HEADER, Header};
use crate::StoreError;

/// Zeros are written, and synced, in pieces of this size: a large one would hold up the log's own syncs.
const ZERO_BYTES: usize = 512 << 10;
/// What is read first of a record: small ones need no second read.
const PEEK_BYTES: u64 = 4096;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) file_bytes: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// All segments, by their numbers.
#[derive(Clone, Default, Debug)]
pub(super) struct Segments(pub(super) BTreeMap<u64, Arc<Segment>>);

/// Name of a segment's file.
pub(super) fn name(id: u64) -> String {
    format!("{id:016x}.wal")
}

/// Makes an empty segment of at least `file_bytes`. It gets its name when it is all on disk.
pub(super) fn make(folder: &Path, id: u64, file_bytes: u64) -> Result<Segment, StoreError> {
    make_from(folder, id, file_bytes, None)
}

/// Like [`make`], but reuses the file of `used`, a dead segment of that size.
pub(super) fn make_from(folder: &Path, id: u64, file_bytes: u64, used: Option<Segment>) -> Result<Segment, StoreError> {
    let file_bytes = file_bytes.div_ceil(SECTOR as u64) * SECTOR as u64;
    let (path, new) = (folder.join(name(id)), folder.join(name(id) + ".new"));
    let write = || -> io::Result<File> {
        if let Some(used) = &used {
            std::fs::rename(&used.path, &new)?;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&new)?;
        zero(&file, 0, file_bytes)?;
        file.write_all_at(&layout::header(id, file_bytes), 0)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        crate::snapshot::sync_dir(folder)?;
        Ok(file)
    };
    let file = write().map_err(|error| {
        // The next attempt or the next start removes it as well.
        let _ = std::fs::remove_file(&new);
        StoreError::io(path.display(), error)
    })?;
    Ok(Segment { id, file_bytes, path, file })
}

/// Writes zeros, and syncs them.
pub(super) fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES];
    let mut at = from;
    while at < to {
        let piece = (to - at).min(ZERO_BYTES as u64);
        file.write_all_at(&zeros[..piece as usize], at)?;
        file.sync_data()?;
        at += piece;
    }
    Ok(())
}

// === impl Segment ===

impl Segment {
    pub(super) fn capacity(&self) -> u64 {
        layout::capacity(self.file_bytes)
    }

    /// The changes of the record at `offset` and where the next one begins; none where the segment has no further record.
    ///
    /// # Errors
    /// `Corrupt` for a record that was valid when the log was opened, and is not any more.
    pub(super) fn read(&self, offset: u64) -> Result<Option<(Vec<Change>, u64)>, StoreError> {
        let damaged = || StoreError::Corrupt(format!("{}: the record at {offset} is damaged", self.path.display()));
        if offset + (record::OVERHEAD as u64) > self.capacity() {
            return Ok(None);
        }
        let mut bytes = self.read_payload(offset, PEEK_BYTES)?;
        let Some(header) = Header::decode(&bytes, self.id, offset) else {
            return match bytes.iter().take(HEADER).all(|byte| *byte == 0) {
                true => Ok(None),
                false => Err(damaged()),
            };
        };
        if header.record_bytes() > bytes.len() {
            bytes = self.read_payload(offset, header.record_bytes() as u64)?;
        }
        let body = header.body(&bytes).ok_or_else(damaged)?;
        let changes = record::decode_changes(Bytes::copy_from_slice(body)).ok_or_else(damaged)?;
        Ok(Some((changes, offset + header.record_bytes() as u64)))
    }

    /// Up to `length` bytes of payload.
    fn read_payload(&self, offset: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        let end = (offset + length).min(self.capacity());
        let (from, to) = (layout::sector_of(offset), layout::sector_of(end.saturating_sub(1)) + SECTOR as u64);
        let mut sectors = vec![0; (to - from) as usize];
        self.file.read_exact_at(&mut sectors, from).map_err(|error| StoreError::io(self.path.display(), error))?;
        let (mut payload, _) = layout::decode(&sectors);
        payload.drain(..(offset % layout::PAYLOAD as u64) as usize);
        payload.truncate((end - offset) as usize);
        Ok(payload)
    }
}

// === impl Segments ===

impl Segments {
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes_from(0)
    }

    /// The bytes of the segments from `id` on.
    pub(super) fn size_bytes_from(&self, id: u64) -> u64 {
        self.0.range(id..).map(|(_, segment)| segment.file_bytes).sum()
    }

    /// The record at a place or, where its segment ends there, the first one of the next segment; and the place after it.
    pub(super) fn read(&self, at: Place) -> Result<Option<(Vec<Change>, Place)>, StoreError> {
        let mut at = at;
        while let Some(segment) = self.0.get(&at.segment) {
            if let Some((changes, offset)) = segment.read(at.offset)? {
                return Ok(Some((changes, Place { offset, ..at })));
            }
            at = Place { segment: at.segment + 1, offset: 0 };
        }
        Ok(None)
    }
}
