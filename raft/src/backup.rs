//! Backups: the whole state as one self-contained stream of bytes, and a state made of it again.
//!
//! Owns the archive's format and nothing of where archives lie. An archive is engine-independent: it holds
//! logical records (a key with its value and revisions, a lease, a sealed key), not tables. History is left out,
//! because a restore marks everything before it as compacted (design D10). Keys of the cluster are in it as the
//! store has them, sealed; Secrets are values that were sealed before they were proposed. So an archive is worth
//! nothing without the token.
//!
//! # Format
//!
//! ```text
//! "TRIREMEB"                                       8 bytes
//! frame*    length  (4 bytes, big endian)
//!           CRC32C of the payload (4 bytes, big endian)
//!           payload: an encoded `store.BackupFrame`
//! ```
//!
//! The first frame is the header, the last one is the trailer, with the counts and the SHA-256 of all bytes before it. Nothing follows
//! the trailer, except in a snapshot that etcd's tools took: there the checksum that these tools expect follows ([`EtcdTail`]). An
//! archive that was cut off has no trailer and is refused; so is one with a changed bit.
//!
//! The stream is made from one consistent view of the engine, in pieces, and no faster than the consumer takes them. Applies go on,
//! memory is bounded, and since a view does not change, compaction need not be held up meanwhile.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use sha2::{Digest, Sha256};
use trireme_proto::store::{self, BackupFrame, BackupHeader, BackupRecord, BackupTrailer, backup_frame::Frame, backup_record::Record};

use crate::error::StoreError;

mod etcd_tail;
mod reader;
mod restore;
#[cfg(test)]
mod tests;
mod writer;

pub use etcd_tail::EtcdTail;
pub use reader::BackupReader;
pub use restore::{Restored, restore, verify};
pub use writer::Backup;

pub(crate) use writer::{Origin, stream};

/// What an archive begins with.
pub const MAGIC: &[u8; 8] = b"TRIREMEB";
/// A frame is sent when its records reach this.
const CHUNK_BYTES: usize = 256 * 1024;
/// Longer frames are damage. One record may be as large as the largest transaction.
const FRAME_BYTES_MAX: usize = crate::types::MAX_TXN_BYTES + (1 << 20);
/// Length and checksum before each payload.
const FRAME_HEAD_BYTES: usize = 8;

/// What an archive holds.
#[derive(Clone, PartialEq, Debug)]
pub struct BackupSummary {
    /// The state's revision then.
    pub revision: i64,
    /// Keys.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
    /// Sealed keys.
    pub sealed: u64,
    /// SHA-256 of the records.
    pub records_sha256: Bytes,
}

/// Counts and hashes records as they pass.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    trailer: BackupTrailer,
    records: Sha256,
}

// === impl Tally ===

impl Tally {
    fn count(&mut self, record: &BackupRecord) {
        match &record.record {
            Some(Record::Key(_)) => self.trailer.keys += 1,
            Some(Record::Lease(_)) => self.trailer.leases += 1,
            Some(Record::Sealed(_)) => self.trailer.sealed += 1,
            None => {}
        }
        self.records.update(record.encode_length_delimited_to_vec());
    }

    /// The trailer without the hash of the archive.
    fn trailer(&self) -> BackupTrailer {
        BackupTrailer { records_sha256: Bytes::copy_from_slice(&self.records.clone().finalize()), ..self.trailer.clone() }
    }
}

// === impl BackupSummary ===

impl BackupSummary {
    fn new(revision: i64, trailer: &BackupTrailer) -> BackupSummary {
        BackupSummary {
            revision,
            keys: trailer.keys,
            leases: trailer.leases,
            sealed: trailer.sealed,
            records_sha256: trailer.records_sha256.clone(),
        }
    }
}

fn frame(frame: Frame) -> BackupFrame {
    BackupFrame { frame: Some(frame) }
}

/// A frame as it stands in the archive.
fn encode(frame: &BackupFrame) -> Result<Bytes, StoreError> {
    let length = frame.encoded_len();
    if length > FRAME_BYTES_MAX {
        return Err(StoreError::TooLarge { size_bytes: length, limit_bytes: FRAME_BYTES_MAX });
    }
    let payload = frame.encode_to_vec();
    let mut bytes = BytesMut::with_capacity(length + FRAME_HEAD_BYTES);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_u32(crc32c::crc32c(&payload));
    bytes.put_slice(&payload);
    Ok(bytes.freeze())
}

/// Refuses a header that this release cannot restore.
fn check_header(header: &BackupHeader) -> Result<(), StoreError> {
    if header.format != store::FORMAT_BACKUP {
        return Err(StoreError::Invalid(format!("the snapshot has format {}, this release reads {}", header.format, store::FORMAT_BACKUP)));
    }
    if header.feature_level > store::FEATURE_LEVEL {
        return Err(StoreError::Invalid(format!(
            "the snapshot was made at feature level {} by {}, this release only knows {}: restore it with that release",
            header.feature_level,
            header.version,
            store::FEATURE_LEVEL
        )));
    }
    Ok(())
}

fn io_error(error: &io::Error) -> StoreError {
    StoreError::Io(error.to_string())
}
