//! A segment's file: a header of one sector, then sectors that each begin with a tag byte. Between header and tags lies the *payload*, one stream of
//! bytes, in which offsets are counted.
//!
//! The tag makes a sector that was written differ from one that was not, whatever the records hold: zeros inside a value would
//! otherwise look like a sector that a power cut kept from the disk.

/// What a disk writes as a whole, at least.
pub(super) const SECTOR: usize = 512;
/// Payload of one sector.
pub(super) const PAYLOAD: usize = SECTOR - 1;
/// First byte of each written sector. Several bits are set: one flipped bit never makes it zero.
pub(super) const TAG: u8 = 0xD6;

const MAGIC: &[u8; 8] = b"trireWAL";
const VERSION: u32 = 1;

/// The header's sector of segment `id` of `file_bytes`.
pub(super) fn header(id: u64, file_bytes: u64) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..8].copy_from_slice(MAGIC);
    sector[8..12].copy_from_slice(&VERSION.to_be_bytes());
    sector[12..20].copy_from_slice(&id.to_be_bytes());
    sector[20..28].copy_from_slice(&file_bytes.to_be_bytes());
    let crc = crc32c::crc32c(&sector[..SECTOR - 4]);
    sector[SECTOR - 4..].copy_from_slice(&crc.to_be_bytes());
    sector
}

/// Payload of a file of so many bytes.
pub(super) const fn capacity(file_bytes: u64) -> u64 {
    (file_bytes / SECTOR as u64).saturating_sub(1) * PAYLOAD as u64
}

/// The smallest file with room for so much payload.
pub(super) const fn file_bytes_for(payload: u64) -> u64 {
    (payload.div_ceil(PAYLOAD as u64) + 1) * SECTOR as u64
}

/// Where in the file the sector of a payload offset begins.
pub(super) const fn sector_of(offset: u64) -> u64 {
    (offset / PAYLOAD as u64 + 1) * SECTOR as u64
}

/// Where in the file a write of payload at `offset` begins: at the tag, where it is the first of its sector.
pub(super) const fn write_position(offset: u64) -> u64 {
    match offset % PAYLOAD as u64 {
        0 => sector_of(offset),
        within => sector_of(offset) + 1 + within,
    }
}

/// The bytes of the file from [`write_position`] on that hold `payload`.
pub(super) fn encode(offset: u64, payload: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.reserve(payload.len() + payload.len() / PAYLOAD + 2);
    let first = match (offset % PAYLOAD as u64) as usize {
        0 => 0,
        within => (PAYLOAD - within).min(payload.len()),
    };
    let (first, rest) = payload.split_at(first);
    into.extend_from_slice(first);
    for piece in rest.chunks(PAYLOAD) {
        into.push(TAG);
        into.extend_from_slice(piece);
    }
}

/// The payload of whole sectors, and whether all have their tag.
pub(super) fn decode(sectors: &[u8]) -> (Vec<u8>, bool) {
    let mut payload = Vec::with_capacity(sectors.len());
    let mut tagged = true;
    for sector in sectors.chunks(SECTOR) {
        tagged &= sector[0] == TAG;
        payload.extend_from_slice(&sector[1..]);
    }
    (payload, tagged)
}
