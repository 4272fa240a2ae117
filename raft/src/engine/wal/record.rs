//! A record: what one write of the engine did. All of it counts, or nothing.
//!
//! ```text
//! magic 4 | length of the body 4 | sequence 8 | CRC of the body 4 | CRC of the header 4 | body | 1 byte that is not zero
//! ```
//!
//! Numbers are big endian, checksums CRC-32C. The header's also covers the segment and the offset, so a record is valid in its place
//! only. Sequence numbers are consecutive over all segments: a record that is missing shows. The last byte tells a record that is all there from one whose end was
//! never written.

use bytes::Bytes;

/// First bytes of a record; none of them is zero.
const MAGIC: [u8; 4] = [0x9B, 0x57, 0xE6, 0x3D];
pub(super) const HEADER: usize = 24;
const END: u8 = 0xB5;
/// What a record adds to its body.
pub(super) const OVERHEAD: usize = HEADER + 1;

const ENTRY: u8 = 1;
const SET: u8 = 2;
const UNSET: u8 = 3;
const CUT_END: u8 = 4;
const CUT_START: u8 = 5;

/// One change of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Appends the entry of this index.
    Entry(u64, Bytes),
    /// Sets a mark.
    Set(Vec<u8>, Bytes),
    /// Removes a mark.
    Unset(Vec<u8>),
    /// Removes the entries from this index on.
    CutEnd(u64),
    /// Removes the entries before this index.
    CutStart(u64),
}

/// The header of a record that is in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) body_bytes: usize,
    body_crc: u32,
}

// === impl Header ===

impl Header {
    /// `bytes` may be longer. None where there is no header of a record of this place.
    pub(super) fn decode(bytes: &[u8], segment: u64, offset: u64) -> Option<Header> {
        let bytes = bytes.get(..HEADER)?;
        let crc = u32_at(bytes, 20);
        (bytes[..4] == MAGIC && crc == header_crc(&bytes[..20], segment, offset)).then(|| Header {
            sequence: u64::from(u32_at(bytes, 8)) << 32 | u64::from(u32_at(bytes, 12)),
            body_bytes: u32_at(bytes, 4) as usize,
            body_crc: u32_at(bytes, 16),
        })
    }

    /// The bytes of the whole record.
    pub(super) fn record_bytes(&self) -> usize {
        self.body_bytes + OVERHEAD
    }

    /// The body, where `record`, which begins with the header, has all of it unchanged.
    pub(super) fn body<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let body = record.get(HEADER..HEADER + self.body_bytes)?;
        (crc32c::crc32c(body) == self.body_crc).then_some(body)
    }
}

/// Replaces the content of `into` with a record, which is valid after [`place`]. None if the body is longer than its length field can express.
pub(super) fn encode<'a>(changes: impl Iterator<Item = &'a Change>, sequence: u64, into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    into.resize(HEADER, 0);
    for change in changes {
        encode_change(change, into)?;
    }
    let (length, crc) = (u32::try_from(into.len() - HEADER).ok()?, crc32c::crc32c(&into[HEADER..]));
    into.push(END);
    into[..4].copy_from_slice(&MAGIC);
    into[4..8].copy_from_slice(&length.to_be_bytes());
    into[8..16].copy_from_slice(&sequence.to_be_bytes());
    into[16..20].copy_from_slice(&crc.to_be_bytes());
    Some(())
}

/// Makes an encoded record valid in its place.
pub(super) fn place(record: &mut [u8], segment: u64, offset: u64) {
    let crc = header_crc(&record[..20], segment, offset);
    record[20..HEADER].copy_from_slice(&crc.to_be_bytes());
}

fn header_crc(header: &[u8], segment: u64, offset: u64) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&segment.to_be_bytes()), &offset.to_be_bytes());
    crc32c::crc32c_append(crc, header)
}

fn encode_change(change: &Change, into: &mut Vec<u8>) -> Option<()> {
    let bytes = |into: &mut Vec<u8>, bytes: &[u8]| {
        into.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_be_bytes());
        into.extend_from_slice(bytes);
        Some(())
    };
    match change {
        Change::Entry(index, value) => {
            into.push(ENTRY);
            into.extend_from_slice(&index.to_be_bytes());
            bytes(into, value)
        }
        Change::Set(key, value) => {
            into.push(SET);
            bytes(into, key)?;
            bytes(into, value)
        }
        Change::Unset(key) => {
            into.push(UNSET);
            bytes(into, key)
        }
        Change::CutEnd(index) | Change::CutStart(index) => {
            into.push(if matches!(change, Change::CutEnd(_)) { CUT_END } else { CUT_START });
            into.extend_from_slice(&index.to_be_bytes());
            Some(())
        }
    }
}

/// The changes of a body. None where it cannot be read.
pub(super) fn decode_changes(body: Bytes) -> Option<Vec<Change>> {
    let mut rest = Reader(body);
    let mut changes = Vec::new();
    while !rest.0.is_empty() {
        changes.push(match rest.take(1)?[0] {
            ENTRY => Change::Entry(rest.number()?, rest.bytes()?),
            SET => Change::Set(rest.bytes()?.to_vec(), rest.bytes()?),
            UNSET => Change::Unset(rest.bytes()?.to_vec()),
            CUT_END => Change::CutEnd(rest.number()?),
            CUT_START => Change::CutStart(rest.number()?),
            _ => return None,
        });
    }
    Some(changes)
}

/// What is left of a body.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.as_ref().try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = u32_at(&self.take(4)?, 0) as usize;
        self.take(length)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
