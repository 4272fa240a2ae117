//! Reads an archive. Every frame is verified by its checksum before it is used.

use std::io::{self, Read};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use trireme_proto::store::{BackupFrame, BackupHeader, BackupRecord, BackupTrailer, backup_frame::Frame};

use super::{BackupSummary, EtcdTail, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, MAGIC, Tally, check_header};
use crate::error::StoreError;

/// An archive that is being read, one chunk in memory at a time.
pub struct BackupReader<R> {
    source: R,
    header: BackupHeader,
    archive: Sha256,
    tally: Tally,
    /// Bytes read so far, to say where damage is.
    offset: u64,
    end: Option<BackupTrailer>,
}

fn damaged(offset: u64, what: &str) -> StoreError {
    StoreError::Corrupt(format!("the snapshot is damaged at byte {offset}: {what}"))
}

fn cut_off(offset: u64) -> StoreError {
    damaged(offset, "it ends in the middle, so it was not written or copied completely")
}

// === impl BackupReader ===

impl<R: Read> BackupReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// `Invalid` where this is no archive or one of a newer release, `Corrupt` where it is damaged.
    pub fn open(mut source: R) -> Result<BackupReader<R>, StoreError> {
        let mut magic = [0; MAGIC.len()];
        match source.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) => return Err(StoreError::Invalid("this is not a snapshot of Trireme".into())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(StoreError::Invalid("this is not a snapshot of Trireme: it is shorter than one can be".into()));
            }
            Err(error) => return Err(super::io_error(&error)),
        }
        let mut reader = BackupReader {
            source,
            header: BackupHeader::default(),
            archive: Sha256::new_with_prefix(magic),
            tally: Tally::default(),
            offset: MAGIC.len() as u64,
            end: None,
        };
        match reader.frame()? {
            Frame::Header(header) => {
                check_header(&header)?;
                reader.header = header;
                Ok(reader)
            }
            _ => Err(damaged(reader.offset, "it does not begin with a header")),
        }
    }

    /// The header: where the state comes from, and its revision.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The next records; none once the trailer has confirmed everything before it.
    ///
    /// # Errors
    /// `Corrupt` for damage of any kind.
    pub fn next_records(&mut self) -> Result<Option<Vec<BackupRecord>>, StoreError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let (offset, archive) = (self.offset, self.archive.clone());
        match self.frame()? {
            Frame::Chunk(chunk) => {
                chunk.records.iter().for_each(|record| self.tally.count(record));
                self.tally.trailer.chunks += 1;
                Ok(Some(chunk.records))
            }
            Frame::Trailer(trailer) => {
                let expected = BackupTrailer { archive_sha256: Bytes::copy_from_slice(&archive.finalize()), ..self.tally.trailer() };
                if trailer != expected {
                    return Err(damaged(offset, "its content does not match its checksum"));
                }
                self.expect_end()?;
                self.end = Some(trailer);
                Ok(None)
            }
            Frame::Header(_) => Err(damaged(offset, "a second header")),
        }
    }

    /// The summary of the archive, once [`BackupReader::next_records`] has returned none.
    ///
    /// # Errors
    /// `Invalid` where it has not been read to its end.
    pub fn summary(&self) -> Result<BackupSummary, StoreError> {
        let trailer = self.end.as_ref().ok_or_else(|| StoreError::Invalid("the snapshot was not read to its end".into()))?;
        Ok(BackupSummary::new(self.header.revision, trailer))
    }

    /// Checks that the archive ends here: either nothing follows, or exactly what etcd's tools expect at the end of a snapshot
    /// ([`EtcdTail`]).
    fn expect_end(&mut self) -> Result<(), StoreError> {
        let expected = EtcdTail::new(self.archive.clone(), self.offset).to_bytes();
        let mut tail = Vec::with_capacity(expected.len());
        let limit = expected.len() as u64 + 1;
        self.source.by_ref().take(limit).read_to_end(&mut tail).map_err(|error| super::io_error(&error))?;
        match tail.is_empty() || tail == expected {
            true => Ok(()),
            false => Err(damaged(self.offset, "something follows its end")),
        }
    }

    fn frame(&mut self) -> Result<Frame, StoreError> {
        let at = self.offset;
        let mut head = [0; FRAME_HEAD_BYTES];
        self.fill(&mut head)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(damaged(at, "a frame of impossible length"));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        if crc32c::crc32c(&payload) != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(damaged(at, "a frame fails its checksum"));
        }
        let frame = BackupFrame::decode(Bytes::from(payload)).map_err(|error| damaged(at, &error.to_string()))?;
        // None is a frame kind of a newer release, whose format number should have been refused before.
        frame.frame.ok_or_else(|| damaged(at, "a frame of unknown kind"))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        match self.source.read_exact(buffer) {
            Ok(()) => {
                self.archive.update(&*buffer);
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut_off(self.offset)),
            Err(error) => Err(super::io_error(&error)),
        }
    }
}
