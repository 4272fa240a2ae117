//! The records of the log engine: encoding, checksums, verification.
//!
//! An entry's value is its length (4 bytes, big endian) and an encoded [`store::LogEntry`], which carries a
//! checksum; vote and marks are checksummed likewise. A last record that is *shorter* than its length says is a torn
//! write, which was never acknowledged, and is dropped. Any other fault is damage.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use trireme_proto::store;

use super::Index;
use crate::engine::{Durability, Engine, Table, WriteBatch};
use crate::error::StoreError;
use crate::types::{
    Entry, LogId, Vote, entry_from_proto, entry_to_proto, log_id_from_proto, log_id_to_proto, term_of, vote_from_proto, vote_to_proto,
};

/// Key of the vote in [`Table::LogMeta`].
pub(super) const VOTE: &[u8] = b"vote";
/// Key of the last committed position that was noted. Invariant: it is written with the entry it names or after it, so a log that ends before
/// it has lost something.
pub(super) const COMMITTED: &[u8] = b"committed-in-log";
/// Key under which releases up to feature level 1 noted it. Their mark may be ahead of the log, and says nothing then.
pub(super) const OLD_COMMITTED: &[u8] = b"committed";
/// Key of the last purged position.
pub(super) const PURGED: &[u8] = b"purged";

pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let proto = entry_to_proto(entry);
    let mut bytes = BytesMut::with_capacity(proto.encoded_len() + 4);
    bytes.put_u32(proto.encoded_len() as u32);
    proto.encode(&mut bytes).expect("invariant: BytesMut grows");
    bytes.freeze()
}

pub(super) fn decode_entry(mut value: Bytes) -> Result<Entry, StoreError> {
    let length = if value.len() < 4 { u32::MAX } else { value.get_u32() };
    if value.len() != length as usize {
        return Err(StoreError::Corrupt("a log entry is cut short".into()));
    }
    let proto = store::LogEntry::decode(value).map_err(|error| StoreError::Corrupt(format!("log entry: {error}")))?;
    entry_from_proto(proto)
}

pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    vote_to_proto(vote).encode_to_vec().into()
}

/// A position and its checksum.
pub(super) fn encode_mark(id: &LogId) -> Bytes {
    let proto = log_id_to_proto(id).encode_to_vec();
    let mut bytes = BytesMut::new();
    bytes.put_u32(crc32c::crc32c(&proto));
    bytes.put_slice(&proto);
    bytes.freeze()
}

fn decode_mark(mut value: Bytes, what: &str) -> Result<LogId, StoreError> {
    let damaged = || StoreError::Corrupt(format!("the {what} mark of the log is damaged"));
    if value.len() < 4 || value.get_u32() != crc32c::crc32c(&value) {
        return Err(damaged());
    }
    store::LogId::decode(value).map(|id| log_id_from_proto(&id)).map_err(|_| damaged())
}

/// Reads the whole log and checks it.
pub(super) fn verify(engine: &dyn Engine) -> Result<Index, StoreError> {
    let mut index = Index::default();
    let torn = {
        let view = engine.view();
        if let Some(vote) = view.get(Table::LogMeta, VOTE)? {
            let vote = store::Vote::decode(vote).map_err(|error| StoreError::Corrupt(format!("vote: {error}")))?;
            index.vote = Some(vote_from_proto(&vote)?);
        }
        let mark = |key: &[u8], what: &str| view.get(Table::LogMeta, key)?.map(|value| decode_mark(value, what)).transpose();
        index.committed = mark(COMMITTED, "committed")?;
        let old_committed = mark(OLD_COMMITTED, "committed")?;
        index.purged = mark(PURGED, "purged")?;
        let mut cursor = view.cursor(Table::Entry, &[], None)?;
        let mut torn = None;
        while let Some((key, value)) = cursor.entry() {
            let (key, value) = (key.to_vec(), Bytes::copy_from_slice(value));
            cursor.advance()?;
            let is_last = cursor.entry().is_none();
            if is_last && is_torn(&value) {
                torn = Some(key);
                break;
            }
            accept(&mut index, &key, value)?;
        }
        check_committed(&mut index, old_committed)?;
        torn
    };
    if let Some(key) = torn {
        tracing::warn!("dropping a torn record at the end of the log");
        let mut batch = WriteBatch::new();
        batch.delete(Table::Entry, &key);
        engine.write(batch, Durability::Synced)?;
    }
    // Invariant: a member saves a term before it appends an entry of it (term 0 is the first configuration, before any vote).
    let seen = index.vote.map_or(0, |vote| vote.leader_id.term);
    if index.last_or_purged().is_some_and(|last| term_of(&last) > seen) {
        return Err(StoreError::Corrupt("the vote is older than the log: it was lost or rolled back".into()));
    }
    Ok(index)
}

/// Checks the commit marks against the end of the log.
fn check_committed(index: &mut Index, old: Option<LogId>) -> Result<(), StoreError> {
    let end = index.end();
    index.has_old_mark = old.is_some();
    let position = |mark: Option<LogId>| mark.map(|id| id.index());
    if position(index.committed) > end {
        let (end, committed) = (end.unwrap_or(0), position(index.committed).unwrap_or(0));
        return Err(StoreError::Corrupt(format!("it ends at entry {end}, and {committed} had been on disk")));
    }
    index.committed = index.committed.max(old.filter(|_| position(old) <= end));
    Ok(())
}

fn is_torn(value: &Bytes) -> bool {
    let mut value = value.clone();
    value.len() < 4 || {
        let length = value.get_u32() as usize;
        value.len() < length
    }
}

fn accept(index: &mut Index, key: &[u8], value: Bytes) -> Result<(), StoreError> {
    let size = value.len();
    let entry = decode_entry(value)?;
    let at = entry.log_id.index();
    if key != at.to_be_bytes() {
        return Err(StoreError::Corrupt(format!("log entry {at} stands in the wrong place")));
    }
    let expected = match index.last_or_purged() {
        Some(before) => before.index() + 1,
        None => at,
    };
    if at != expected {
        return Err(StoreError::Corrupt(format!("log entry {expected} is missing (found {at})")));
    }
    index.push(entry, size);
    index.written = at;
    index.shrink();
    Ok(())
}
