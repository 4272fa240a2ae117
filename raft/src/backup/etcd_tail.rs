//! The end of an archive by which etcd's tools recognize it as complete.
//!
//! They take a snapshot for complete if its size is that of whole 512-byte sectors and a SHA-256 over them. So zeros fill
//! the last sector, and the checksum of everything so far follows.

use sha2::{Digest, Sha256};

const SECTOR_BYTES: u64 = 512;

/// Follows an archive as it is sent, and ends it.
#[derive(Clone, Debug, Default)]
pub struct EtcdTail {
    sha256: Sha256,
    bytes: u64,
}

// === impl EtcdTail ===

impl EtcdTail {
    pub(crate) fn new(sha256: Sha256, bytes: u64) -> EtcdTail {
        EtcdTail { sha256, bytes }
    }

    /// Takes note of the next piece of the archive.
    pub fn update(&mut self, piece: &[u8]) {
        self.sha256.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// What has to follow the archive.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let missing = self.bytes.next_multiple_of(SECTOR_BYTES) - self.bytes;
        let mut tail = vec![0; usize::try_from(missing).unwrap_or(0)];
        let sha256 = self.sha256.clone().chain_update(&tail).finalize();
        tail.extend_from_slice(&sha256);
        tail
    }
}
