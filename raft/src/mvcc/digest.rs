//! A checksum of a part of the state, to compare replicas by.
//!
//! etcd compares whole stores at one revision (<https://etcd.io/docs/v3.6/op-guide/data_corruption/>). Here the leader
//! takes a part at a time, so that a round costs the same however large the store is, and names it by what every
//! replica agrees on once it has applied a revision: the keys of a range as they were then, and the changes of the
//! revisions before. So a replica may answer late, and nothing has to stand still.

use bytes::Bytes;
use trireme_proto::peer::{Digest, DigestRequest};
use trireme_proto::store::StateHead;

use super::keys::{KeyRange, change_key, change_revision};
use super::read;
use crate::StoreError;
use crate::engine::{Read, Table};

/// What a part holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartLimit {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    pub(crate) changes: i64,
}

/// How a replica answers for a part.
pub(crate) enum Answer {
    Digest(Digest),
    /// The replica cannot answer now, for this reason.
    CannotSay(String),
}

/// The part of the newest revision that begins at key `start` and at the change of `changes_from`, as far as `limit`
/// allows, and its digest.
pub(crate) fn next_part(
    read: &dyn Read,
    start: &Bytes,
    changes_from: i64,
    limit: PartLimit,
) -> Result<(DigestRequest, Digest), StoreError> {
    let head = read::head(read)?.unwrap_or_default();
    let oldest = head.compact_revision.max(head.revision - limit.changes) + 1;
    let mut part =
        DigestRequest { revision: head.revision, start: start.clone(), end: Bytes::new(), changes_from: changes_from.max(oldest) };
    let digest = take(read, &head, &mut part, Some(limit))?;
    Ok((part, digest))
}

/// The digest of a part that another replica has named.
pub(crate) fn digest(read: &dyn Read, part: &DigestRequest) -> Result<Answer, StoreError> {
    let head = read::head(read)?.unwrap_or_default();
    if head.revision < part.revision {
        return Ok(Answer::CannotSay(format!("revision {} is not applied yet", part.revision)));
    }
    if head.compact_revision >= part.changes_from.min(part.revision) {
        return Ok(Answer::CannotSay(format!("compacted up to {}", head.compact_revision)));
    }
    Ok(Answer::Digest(take(read, &head, &mut part.clone(), None)?))
}

/// Hashes `part`; under a limit, moves its end to where the limit was reached.
fn take(read: &dyn Read, head: &StateHead, part: &mut DigestRequest, limit: Option<PartLimit>) -> Result<Digest, StoreError> {
    let mut digest = Digest::default();
    let mut bytes = 0;
    let at = (head.revision != part.revision).then_some(part.revision);
    let range = KeyRange { start: part.start.clone(), end: (!part.end.is_empty()).then(|| part.end.clone()) };
    let mut end = part.end.clone();
    read::scan(read, &range, at, &mut |key, version| {
        if limit.is_some_and(|limit| digest.keys >= limit.keys || bytes >= limit.bytes) {
            end = Bytes::copy_from_slice(key);
            return Ok(false);
        }
        let value = read::value(read, key, version.mod_revision)?;
        let mut crc = digest.keys_crc32c;
        crc = field(crc, key);
        for number in [version.create_revision, version.mod_revision, version.version, version.lease] {
            crc = crc32c::crc32c_append(crc, &number.to_be_bytes());
        }
        digest.keys_crc32c = field(crc, &value);
        digest.keys += 1;
        bytes += (key.len() + value.len()) as u64;
        Ok(true)
    })?;
    part.end = end;
    let mut cursor = read.cursor(Table::Change, &change_key(part.changes_from, 0), Some(&change_key(part.revision + 1, 0)))?;
    while let Some((key, record)) = cursor.entry() {
        change_revision(key)?;
        digest.changes_crc32c = field(crc32c::crc32c_append(digest.changes_crc32c, key), record);
        digest.changes += 1;
        cursor.advance()?;
    }
    Ok(digest)
}

/// Length and bytes, so that no two sequences of fields look the same.
fn field(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &(bytes.len() as u64).to_be_bytes()), bytes)
}
