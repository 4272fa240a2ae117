//! Writes records, one after the other.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use super::contents::{Place, Range};
use super::record::{self, Change};
use super::recovery::End;
use super::segment::Segment;
use super::spare::Spare;
use super::{Published, WalOptions, layout};
use crate::StoreError;
use crate::engine::{Durability, Table, Write, WriteBatch};

/// See the module.
pub(super) struct Appender {
    options: WalOptions,
    published: Arc<RwLock<Published>>,
    segment: Arc<Segment>,
    /// Where the next record goes.
    place: Place,
    sequence: u64,
    /// Written with the next record; readers see it.
    pending: Vec<Change>,
    /// With what is pending.
    range: Range,
    is_unsynced: bool,
    /// The first failure.
    failed: Option<StoreError>,
    spare: Spare,
    record: Vec<u8>,
    framed: Vec<u8>,
}

// === impl Appender ===

impl Appender {
    pub(super) fn new(folder: PathBuf, options: WalOptions, end: End, published: Arc<RwLock<Published>>) -> Appender {
        let (segment, range) = {
            let published = published.read();
            (published.segments.0[&end.place.segment].clone(), published.contents.range())
        };
        Appender {
            options,
            published,
            segment,
            place: end.place,
            sequence: end.sequence,
            pending: Vec::new(),
            range,
            is_unsynced: false,
            failed: None,
            spare: Spare::new(folder, end.spare),
            record: Vec::new(),
            framed: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let (changes, range) = changes_of(batch, self.range)?;
        let is_synced = durability == Durability::Synced;
        if !is_synced && !changes.iter().any(|change| matches!(change, Change::Entry(..))) {
            self.range = range;
            self.publish(&changes)?;
            self.pending.extend(changes);
            return Ok(());
        }
        let written = self.append(changes, range).and_then(|()| if is_synced { self.sync() } else { Ok(()) });
        self.keep_failure(written)
    }

    /// Makes all writes durable and removes the segments that hold no live entry.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let written = if self.pending.is_empty() { Ok(()) } else { self.append(Vec::new(), self.range) };
        let written = written.and_then(|()| self.sync());
        self.keep_failure(written)?;
        self.spare.remove_dead();
        Ok(())
    }

    fn keep_failure(&mut self, written: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error) = &written {
            self.failed = Some(error.clone());
        }
        written
    }

    /// Writes what is pending and `changes` as one record.
    fn append(&mut self, changes: Vec<Change>, range: Range) -> Result<(), StoreError> {
        let marks = if self.place.offset == 0 { self.marks() } else { Vec::new() };
        let mut length = self.encode(&marks, &changes)?;
        if self.place.offset + length > self.segment.capacity() {
            let marks = self.marks();
            length = self.encode(&marks, &changes)?;
            self.next_segment(length)?;
        }
        record::place(&mut self.record, self.place.segment, self.place.offset);
        layout::encode(self.place.offset, &self.record, &mut self.framed);
        let position = layout::write_position(self.place.offset);
        self.is_unsynced = true;
        self.segment.file.write_all_at(&self.framed, position).map_err(|error| StoreError::io(self.segment.path.display(), error))?;
        self.publish(&changes)?;
        self.pending.clear();
        self.range = range;
        self.place.offset += length;
        self.sequence += 1;
        if self.place.offset > self.segment.capacity() / 2 {
            self.spare.prepare(self.place.segment + 1, self.next_size());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.is_unsynced) {
            return Ok(());
        }
        self.segment.file.sync_data().map_err(|error| StoreError::io(self.segment.path.display(), error))?;
        self.drop_dead();
        Ok(())
    }

    /// All marks, as a segment begins with them.
    fn marks(&self) -> Vec<Change> {
        let published = self.published.read();
        published.contents.marks.iter().map(|(key, value)| Change::Set(key.clone(), value.clone())).collect()
    }

    /// Encodes the next record, and returns its length.
    fn encode(&mut self, marks: &[Change], changes: &[Change]) -> Result<u64, StoreError> {
        let parts = [marks, &self.pending, changes];
        record::encode(parts.into_iter().flatten(), self.sequence, &mut self.record)
            .ok_or_else(|| StoreError::Invalid("a write of the log is larger than 4 GiB".into()))?;
        Ok(self.record.len() as u64)
    }

    /// Goes on in the next segment, which has room for so much payload.
    fn next_segment(&mut self, length: u64) -> Result<(), StoreError> {
        // Nothing of the next segment may be on disk while something of this one is not.
        self.sync()?;
        let segment = self.spare.take(self.place.segment + 1, self.next_size(), layout::file_bytes_for(length))?;
        let segment = Arc::new(segment);
        self.place = Place { segment: segment.id, offset: 0 };
        self.segment = segment.clone();
        Arc::make_mut(&mut self.published.write().segments).0.insert(segment.id, segment);
        Ok(())
    }

    fn next_size(&self) -> u64 {
        (self.segment.file_bytes * 2).clamp(self.options.first_segment_bytes, self.options.segment_bytes)
    }

    /// Shows readers a record at the current place.
    fn publish(&self, changes: &[Change]) -> Result<(), StoreError> {
        Arc::make_mut(&mut self.published.write().contents).apply(changes, self.place)
    }

    /// Segments before the first entry go. Everything that was written is synced, so what says that their entries are purged is, too.
    fn drop_dead(&mut self) {
        let mut published = self.published.write();
        // A purge that is pending is not on disk.
        if !self.pending.is_empty() {
            return;
        }
        let needed = published.contents.first_place().map_or(self.place.segment, |place| place.segment);
        if published.segments.0.first_key_value().is_none_or(|(first, _)| *first >= needed) {
            return;
        }
        let kept = Arc::make_mut(&mut published.segments).0.split_off(&needed);
        let dead = std::mem::replace(&mut Arc::make_mut(&mut published.segments).0, kept);
        drop(published);
        self.spare.add_dead(dead.into_values());
    }
}

/// What a batch changes in a log of that range, and the range after it. An entry that the batch itself cuts off again is left out.
///
/// # Errors
/// `Invalid` for what is no write of a log, `Corrupt` for an entry that does not follow the last one.
fn changes_of(batch: WriteBatch, mut range: Range) -> Result<(Vec<Change>, Range), StoreError> {
    let mut changes = Vec::new();
    for write in batch.into_writes() {
        let Some(change) = change_of(write, range)? else { continue };
        range = range.after(&change)?;
        if let Change::CutEnd(from) = change {
            changes.retain(|earlier| !matches!(earlier, Change::Entry(index, _) if *index >= from));
        }
        changes.push(change);
    }
    Ok((changes, range))
}

fn change_of(write: Write, range: Range) -> Result<Option<Change>, StoreError> {
    let strange = || StoreError::Invalid("the write is none of a log: entries are appended and cut off, marks are set".into());
    let entry = |key: &[u8]| {
        let key = key.strip_prefix(&[Table::Entry as u8]).filter(|key| key.len() <= 8)?;
        let mut index = [0; 8];
        index[..key.len()].copy_from_slice(key);
        Some((key.len(), u64::from_be_bytes(index)))
    };
    let mark = |key: &[u8]| key.strip_prefix(&[Table::LogMeta as u8]).map(<[u8]>::to_vec);
    Ok(Some(match write {
        Write::Put(key, value) => match (entry(&key), mark(&key)) {
            (Some((8, index)), _) => Change::Entry(index, value),
            (_, Some(key)) => Change::Set(key, value),
            _ => return Err(strange()),
        },
        Write::Delete(key) => match (entry(&key), mark(&key)) {
            (Some((8, index)), _) => range.without(index).ok_or_else(strange)?,
            (_, Some(key)) => Change::Unset(key),
            _ => return Err(strange()),
        },
        Write::DeleteRange(start, end) if start >= end => return Ok(None),
        Write::DeleteRange(start, end) => match (entry(&start), entry(&end)) {
            (Some((_, from)), None) if end == [Table::Entry as u8 + 1] => Change::CutEnd(from),
            (Some((0, _)), Some((_, to))) => Change::CutStart(to),
            _ => return Err(strange()),
        },
    }))
}
