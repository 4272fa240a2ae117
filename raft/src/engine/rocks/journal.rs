//! The framing of RocksDB's journals, its write-ahead log and its manifest, read to decide one question: may the tail
//! be dropped?
//!
//! RocksDB answers it too leniently for a Raft log. In the mode that tolerates a torn tail it takes a record that claims
//! to be longer than what is left of the file for the last write before a crash, and drops everything from there on. But a flipped bit
//! in the length of a record that was synced and acknowledged looks just the same, and may take a block's worth of good records with
//! it. In the strict mode it also refuses a log with a genuine torn write.
//!
//! What tells them apart (design D10):
//!
//! - A write that was cut short is *short*: what there is of it is its beginning, and there is nothing behind it. Its
//!   checksum cannot be that of any shorter record, except by one chance in 2³².
//! - So a record that runs beyond the end of the file is torn, unless its checksum fits a shorter length: then it is whole, and
//!   its length is what was altered.
//! - A record that is all there and fails its checksum is damage, also the very last one: an append extends the file only as
//!   far as its bytes have been written.
//! - A tail of zeros was never written (a file system may extend a file before its data), and counts as torn.
//! - Only the newest journal that holds anything may end torn. Older ones were synced before it was acknowledged.
//!
//! Not detectable here: a disk that lost a whole synced tail and left the file shorter at a record's end. That is
//! found from outside: by the state, which must not be ahead of the log, and by the leader, which refuses a follower whose log
//! went backwards.
//!
//! Format: <https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format>.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::StoreError;

const BLOCK: usize = 32 * 1024;
/// Checksum (4 bytes), length (2), type (1).
const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// How a journal ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// With a whole record, or without any.
    Whole,
    /// Within a record that was never completed and that begins here.
    Torn(usize),
}

/// Checks every journal of the instance in `directory`, if there is one.
///
/// # Errors
/// `Corrupt` for damage that opening it would pass over.
pub(super) fn check_directory(directory: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::io(directory.display(), error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let number = |name: &String| name.strip_suffix(".log").and_then(|number| number.parse::<u64>().ok());
    let mut logs: Vec<(u64, PathBuf)> = names.iter().filter_map(|name| Some((number(name)?, directory.join(name)))).collect();
    logs.sort_unstable();
    let instance = names.iter().any(|name| name.starts_with("MANIFEST-") || name.ends_with(".sst")) || !logs.is_empty();
    if instance {
        check_file(&directory.join(current(directory)?))?;
    }
    let mut torn: Option<PathBuf> = None;
    for (_, path) in logs {
        let empty = fs::metadata(&path).map_err(failed)?.len() == 0;
        if !empty && let Some(torn) = &torn {
            return Err(StoreError::Corrupt(format!("{} ends torn although {} follows it", torn.display(), path.display())));
        }
        if check_file(&path)? != End::Whole {
            torn = Some(path);
        }
    }
    Ok(())
}

/// Name of the manifest in use. A missing `CURRENT` is damage: RocksDB would take the folder for a new instance and start empty.
fn current(directory: &Path) -> Result<String, StoreError> {
    let path = directory.join("CURRENT");
    let damaged = |what: &dyn std::fmt::Display| StoreError::Corrupt(format!("{}: {what}", path.display()));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Err(damaged(&error)),
        Err(error) => return Err(StoreError::io(path.display(), error)),
    };
    match text.strip_suffix('\n').filter(|name| name.starts_with("MANIFEST-")) {
        Some(name) => Ok(name.to_owned()),
        None => Err(damaged(&"it names no manifest")),
    }
}

fn check_file(path: &Path) -> Result<End, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Corrupt(format!("{}: {error}", path.display())));
        }
        Err(error) => return Err(StoreError::io(path.display(), error)),
    };
    check(&bytes).map_err(|what| StoreError::Corrupt(format!("{}: {what}", path.display())))
}

/// Checks a journal's content.
pub(super) fn check(bytes: &[u8]) -> Result<End, String> {
    let mut at = 0;
    // Where the record began whose fragments are being read.
    let mut open: Option<usize> = None;
    while at < bytes.len() {
        let left_in_block = BLOCK - at % BLOCK;
        let rest = &bytes[at..];
        if left_in_block < HEADER {
            let padding = &rest[..left_in_block.min(rest.len())];
            if padding.iter().any(|byte| *byte != 0) {
                return Err(format!("the padding at {at} is damaged"));
            }
            at += left_in_block;
            continue;
        }
        if rest.len() < HEADER || rest.iter().all(|byte| *byte == 0) {
            return Ok(End::Torn(open.unwrap_or(at)));
        }
        let length = usize::from(u16::from_le_bytes([rest[4], rest[5]]));
        if HEADER + length > left_in_block {
            return Err(format!("the record at {at} is longer than its block"));
        }
        if HEADER + length > rest.len() {
            return match fits_shorter(rest) {
                true => Err(format!("the length of the record at {at} is damaged")),
                false => Ok(End::Torn(open.unwrap_or(at))),
            };
        }
        let checksum = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
        if masked(crc32c::crc32c(&rest[6..HEADER + length])) != checksum {
            return Err(format!("the record at {at} fails its checksum"));
        }
        match (rest[6], open) {
            (FULL, None) => {}
            (FIRST, None) => open = Some(at),
            (MIDDLE, Some(_)) => {}
            (LAST, Some(_)) => open = None,
            (kind, _) => return Err(format!("the record at {at} is of kind {kind}, which does not belong there")),
        }
        at += HEADER + length;
    }
    Ok(open.map_or(End::Whole, End::Torn))
}

/// Whether the record is whole with another length than it says.
fn fits_shorter(record: &[u8]) -> bool {
    let checksum = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
    let mut crc = crc32c::crc32c(&record[6..HEADER]);
    if masked(crc) == checksum {
        return true;
    }
    record[HEADER..].iter().any(|byte| {
        crc = crc32c::crc32c_append(crc, &[*byte]);
        masked(crc) == checksum
    })
}

/// As RocksDB stores checksums, so that a checksum of checksums is not trivial.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal of these records, as RocksDB writes it, and where each begins.
    fn journal(records: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for record in records {
            let mut rest = record.as_slice();
            let mut begin = true;
            loop {
                let left = BLOCK - bytes.len() % BLOCK;
                if left < HEADER {
                    bytes.resize(bytes.len() + left, 0);
                    continue;
                }
                if begin {
                    starts.push(bytes.len());
                }
                let (fragment, after) = rest.split_at(rest.len().min(left - HEADER));
                let kind = match (begin, after.is_empty()) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, false) => MIDDLE,
                    (false, true) => LAST,
                };
                let crc = masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), fragment));
                bytes.extend_from_slice(&crc.to_le_bytes());
                bytes.extend_from_slice(&(fragment.len() as u16).to_le_bytes());
                bytes.push(kind);
                bytes.extend_from_slice(fragment);
                (rest, begin) = (after, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        (bytes, starts)
    }

    fn records() -> Vec<Vec<u8>> {
        let lengths = [100, 0, 40, 500, BLOCK, 3 * BLOCK, 17, 200];
        lengths.iter().enumerate().map(|(i, length)| (0..*length).map(|j| (i * 31 + j * 7 + j / 251) as u8).collect()).collect()
    }

    #[test]
    fn a_tail_torn_at_any_byte_is_torn_where_its_record_began() {
        let (bytes, starts) = journal(&records());
        assert_eq!(check(&bytes), Ok(End::Whole));
        let last = *starts.last().unwrap();
        // The last record at every byte, those before it every so often.
        for end in (0..last).step_by(4001).chain(last..bytes.len()) {
            let begun = *starts.iter().rfind(|start| **start <= end).unwrap();
            let expected = if begun == end { End::Whole } else { End::Torn(begun) };
            assert_eq!(check(&bytes[..end]), Ok(expected), "cut at {end}");
            let mut zeros = bytes[..begun].to_vec();
            zeros.resize(bytes.len(), 0);
            if end % 61 == 0 {
                assert_eq!(check(&zeros), Ok(End::Torn(begun)), "zeros from {begun}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let small: Vec<Vec<u8>> = records().into_iter().filter(|record| record.len() < 1000).collect();
        let (mut bytes, _) = journal(&small);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes).is_err(), "bit {bit} of {}", bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        // And of long records, every so often.
        let (mut bytes, _) = journal(&records());
        for bit in (0..bytes.len() * 8).step_by(1009) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&bytes).is_err(), "bit {bit} of {}", bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
