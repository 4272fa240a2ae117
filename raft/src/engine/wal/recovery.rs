//! Opening a log: every record is checked, and the end is told apart.
//!
//! Where no valid record begins at the end of the log, there is one of three things:
//!
//! - **nothing**: the rest of the segment is zeros, or bits that flipped in space that was never used;
//! - **a torn record**: a write that a power cut interrupted, so it was never acknowledged. It is removed. A disk writes sectors in any order, a file
//!   system may tear at any byte; so a record counts as torn if one of its sectors was not written, or its end was not;
//! - **damage**: everything of it was written, so it may have been acknowledged, and it is not what was written. The log is refused.
//!
//! A segment that is followed by another one was complete, and whether it still is shows in the sequence numbers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::contents::{Contents, Place};
use super::layout::{self, PAYLOAD, SECTOR};
use super::record::{self, HEADER, Header};
use super::segment::{self, Segment, Segments};
use crate::StoreError;

/// A log that was read.
pub(super) struct Recovered {
    pub(super) contents: Contents,
    /// Those that are in use; never empty.
    pub(super) segments: Segments,
    pub(super) end: End,
}

/// Where the next record goes.
pub(super) struct End {
    pub(super) place: Place,
    pub(super) sequence: u64,
    /// An empty segment behind the last one.
    pub(super) spare: Option<Segment>,
}

/// The content of a segment's file.
struct Content {
    segment: Segment,
    payload: Vec<u8>,
    /// The tag byte of each sector.
    tags: Vec<u8>,
    /// Payload up to here is not all zeros.
    extent: usize,
}

/// What was found in a segment.
struct Scan {
    /// Where the last record begins, and where it ends.
    last: Option<(usize, usize)>,
    tail: Tail,
}

#[derive(PartialEq, Eq, Debug)]
enum Tail {
    Nothing,
    Torn,
    Damaged(String),
}

/// Reads and checks the log in `folder`, and repairs its end.
///
/// # Errors
/// `Corrupt` for damage.
pub(super) fn recover(folder: &Path) -> Result<Recovered, StoreError> {
    let mut contents = Contents::default();
    let mut segments = Segments::default();
    let mut sequence = None;
    // The last segment with something in it, and whether the one before it ends as it should.
    let mut last: Option<(Content, Scan)> = None;
    let mut empty = Vec::new();
    for path in files(folder)? {
        let content = Content::read(folder, path)?;
        if content.segment.id == 1 {
            sequence = Some(1);
        }
        if content.extent == 0 {
            empty.push(content);
            continue;
        }
        // Empty ones before it had no room for its first record. If something is missing there, the sequence numbers say so.
        segments.0.extend(empty.drain(..).map(|content: Content| (content.segment.id, Arc::new(content.segment))));
        let scan = content.scan(&mut contents, &mut sequence)?;
        if let Some((before, scan_before)) = last.take() {
            // A record that follows has the next sequence number: nothing is missing.
            if scan.last.is_none() && scan_before.tail != Tail::Nothing {
                return Err(StoreError::Corrupt(format!("{} ends within a record", before.segment.path.display())));
            }
            segments.0.insert(before.segment.id, Arc::new(before.segment));
        }
        last = Some((content, scan));
    }
    let mut empty = empty.into_iter();
    let (content, scan) = match last {
        Some(last) => last,
        None => {
            let content = empty.next().ok_or_else(|| StoreError::Corrupt(format!("{} has no segments", folder.display())))?;
            (content, Scan { last: None, tail: Tail::Nothing })
        }
    };
    content.repair(&scan)?;
    let offset = scan.last.map_or(0, |(_, end)| end as u64);
    let end = End {
        place: Place { segment: content.segment.id, offset },
        sequence: sequence.unwrap_or(1),
        spare: empty.next().map(|content| content.segment),
    };
    segments.0.insert(content.segment.id, Arc::new(content.segment));
    Ok(Recovered { contents, segments, end })
}

/// The segments' files in their order. Spares in the making are removed.
fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error| StoreError::io(folder.display(), error);
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".new") {
            std::fs::remove_file(&path).map_err(failed)?;
        } else if let Some(number) = name.strip_suffix(".wal").and_then(|number| u64::from_str_radix(number, 16).ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(StoreError::Corrupt(format!("{} is missing in {}", segment::name(gap[0] + 1), folder.display())));
    }
    Ok(numbers.into_iter().map(|number| folder.join(segment::name(number))).collect())
}

// === impl Content ===

impl Content {
    fn read(folder: &Path, path: PathBuf) -> Result<Content, StoreError> {
        let failed = |error| StoreError::io(path.display(), error);
        let damaged = |what: &str| StoreError::Corrupt(format!("{}: {what}", path.display()));
        let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let mut bytes = vec![0; file_bytes as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = u64::from_str_radix(name.trim_end_matches(".wal"), 16).map_err(|_| damaged("not the name of a segment"))?;
        if bytes.len() < SECTOR || !bytes.len().is_multiple_of(SECTOR) {
            return Err(damaged("it is not as long as it was made"));
        }
        let (header, sectors) = bytes.split_at(SECTOR);
        if header != layout::header(id, file_bytes) {
            return Err(damaged("its header is damaged"));
        }
        let tags = sectors.chunks(SECTOR).map(|sector| sector[0]).collect();
        // A tag without anything behind it counts as the first byte.
        let extent = sectors.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / SECTOR * PAYLOAD + (last % SECTOR).max(1));
        let (payload, _) = layout::decode(sectors);
        debug_assert!(path.starts_with(folder));
        Ok(Content { segment: Segment { id, file_bytes, path, file }, payload, tags, extent })
    }

    /// Applies every record. `sequence` is that of the next record, where it is known.
    fn scan(&self, contents: &mut Contents, sequence: &mut Option<u64>) -> Result<Scan, StoreError> {
        let damaged = |what: String| StoreError::Corrupt(format!("{}: {what}", self.segment.path.display()));
        let (mut at, mut last) = (0, None);
        while let Some((header, body)) = self.record(at) {
            if sequence.is_some_and(|expected| expected != header.sequence) {
                return Err(damaged(format!("records before the one at {at} are missing")));
            }
            let changes = record::decode_changes(Bytes::copy_from_slice(body))
                .ok_or_else(|| damaged(format!("the record at {at} has no meaning")))?;
            contents.apply(&changes, Place { segment: self.segment.id, offset: at as u64 })?;
            *sequence = Some(header.sequence + 1);
            last = Some((at, at + header.record_bytes()));
            at += header.record_bytes();
        }
        Ok(Scan { last, tail: self.tail(at) })
    }

    /// The valid record at an offset.
    fn record(&self, at: usize) -> Option<(Header, &[u8])> {
        let bytes = self.payload.get(at..)?;
        let header = Header::decode(bytes, self.segment.id, at as u64)?;
        header.body(bytes).map(|body| (header, body))
    }

    /// What begins at `at`, where no valid record begins.
    fn tail(&self, at: usize) -> Tail {
        if self.extent <= at {
            return Tail::Nothing;
        }
        if let Some(later) = self.later_record(at + 1) {
            return Tail::Damaged(format!("the record at {at} is damaged, and one at {later} follows"));
        }
        if self.has_unwritten_sector(at) {
            return Tail::Torn;
        }
        let rest = &self.payload[at..];
        match Header::decode(rest, self.segment.id, at as u64) {
            Some(header) if self.extent < at + header.record_bytes() => Tail::Torn,
            None if rest.iter().take(HEADER).all(|byte| *byte == 0) || self.extent - at <= HEADER => Tail::Torn,
            _ => Tail::Damaged(format!("the record at {at} fails its checksum")),
        }
    }

    /// The offset of a header at or after `from` that is in its place.
    fn later_record(&self, from: usize) -> Option<usize> {
        (from..self.extent.saturating_sub(HEADER)).find(|at| Header::decode(&self.payload[*at..], self.segment.id, *at as u64).is_some())
    }

    /// Whether a sector from that of `at` on has nothing but zeros from `at` on, before one that has something.
    fn has_unwritten_sector(&self, at: usize) -> bool {
        let first = at / PAYLOAD;
        (first..=(self.extent - 1) / PAYLOAD).any(|sector| {
            let from = (sector * PAYLOAD).max(at);
            let is_tagged = from == sector * PAYLOAD && self.tags[sector] != 0;
            !is_tagged && self.payload[from..(sector + 1) * PAYLOAD].iter().all(|byte| *byte == 0)
        })
    }

    /// Removes a torn record, and writes the last whole one again: it may be in the page cache only, since a sync of it failed.
    fn repair(&self, scan: &Scan) -> Result<(), StoreError> {
        let failed = |error| StoreError::io(self.segment.path.display(), error);
        let end = scan.last.map_or(0, |(_, end)| end);
        match &scan.tail {
            Tail::Damaged(what) => return Err(StoreError::Corrupt(format!("{}: {what}", self.segment.path.display()))),
            Tail::Torn => {
                tracing::warn!(path = %self.segment.path.display(), offset = end, "dropping a torn record at the end of the log");
                let to = layout::sector_of(self.extent as u64 - 1) + SECTOR as u64;
                segment::zero(&self.segment.file, layout::write_position(end as u64), to).map_err(failed)?;
            }
            Tail::Nothing => {}
        }
        if let Some((begin, end)) = scan.last {
            let mut bytes = Vec::new();
            layout::encode(begin as u64, &self.payload[begin..end], &mut bytes);
            self.segment.file.write_all_at(&bytes, layout::write_position(begin as u64)).map_err(failed)?;
            self.segment.file.sync_data().map_err(failed)?;
        }
        Ok(())
    }
}
