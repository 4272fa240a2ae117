//! One number over keys, versions and values at a revision: equal on members that agree on revision and compaction floor.
//!
//! Answers to etcd's `HashKV` (<https://etcd.io/docs/v3.6/op-guide/data_corruption/>); the number is our own, for the layout is.
//! It must not depend on what members may differ in: how far compaction has *removed* history, where a version lies
//! (`Live` or `Past`), and what happened after the revision.

use prost::Message as _;
use trireme_proto::store::{KeyVersion, StateHead};

use super::keys::parse_versioned_key;
use super::read;
use crate::StoreError;
use crate::engine::{Read, Table};

/// A hash and what it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvHash {
    /// CRC32C over every version that can be read at or before the revision.
    pub hash: u32,
    /// The revision it was taken at.
    pub revision: i64,
    /// The compaction floor then.
    pub compact_revision: i64,
}

/// Hashes the versions up to `revision` (0 for the latest). Reads everything once.
pub(crate) fn hash(read: &dyn Read, head: &StateHead, revision: i64) -> Result<KvHash, StoreError> {
    let at = if revision <= 0 { head.revision } else { revision };
    if at > head.revision {
        return Err(StoreError::FutureRevision { requested: at, current: head.revision });
    }
    if at < head.compact_revision {
        return Err(StoreError::Compacted { compact_revision: head.compact_revision });
    }
    let mut crc = 0;
    // Both tables are keyed by (key, revision), and `Past` has no version without a value: they are walked side by side.
    let mut values = read.cursor(Table::Value, &[], None)?;
    let mut past = read.cursor(Table::Past, &[], None)?;
    while let Some((versioned, value)) = values.entry() {
        let (key, mod_revision) = parse_versioned_key(versioned)?;
        let replaced = match past.entry() {
            Some((found, version)) if found == versioned => Some(read::decode::<KeyVersion>("past version", version)?),
            _ => None,
        };
        let is_past = replaced.is_some();
        if mod_revision <= at {
            let mut version = match replaced {
                Some(version) => version,
                None => read::live(read, &key)?.filter(|version| version.mod_revision == mod_revision).ok_or_else(|| {
                    StoreError::Corrupt(format!("key {} has a value of revision {mod_revision}, but no version", hex::encode(&key)))
                })?,
            };
            if version.until == 0 || version.until > head.compact_revision {
                // A version that ended later had not ended yet at this revision.
                version.until = if version.until > at { 0 } else { version.until };
                crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_be_bytes());
                crc = crc32c::crc32c_append(crc, &key);
                crc = crc32c::crc32c_append(crc, &version.encode_to_vec());
                crc = crc32c::crc32c_append(crc, &(value.len() as u64).to_be_bytes());
                crc = crc32c::crc32c_append(crc, value);
            }
        }
        if is_past {
            past.advance()?;
        }
        values.advance()?;
    }
    if let Some((orphan, _)) = past.entry() {
        let (key, mod_revision) = parse_versioned_key(orphan)?;
        return Err(StoreError::Corrupt(format!("key {} has a version of revision {mod_revision}, but no value", hex::encode(key))));
    }
    Ok(KvHash { hash: crc, revision: at, compact_revision: head.compact_revision })
}
