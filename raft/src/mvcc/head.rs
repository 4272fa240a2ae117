//! The head record: where the state stands. It is written in the same batch as the data it describes.

use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::store::{FORMAT_STATE, StateHead};

use super::lease::LeaseClock;
use super::proposals::Proposals;
use super::{EntryId, read};
use crate::StoreError;
use crate::engine::{Durability, Engine, Table, WriteBatch};

/// Where the state stands. All of it is written in the same batch as the data it describes.
#[derive(Clone, PartialEq, Debug)]
pub struct StateInfo {
    /// The last entry applied.
    pub last_applied: Option<EntryId>,
    /// As it came in with [`EntryBody::Membership`]; empty if none did.
    pub membership: Bytes,
    /// The store's revision.
    pub revision: i64,
    /// Reads below are refused.
    pub compact_revision: i64,
    /// Commands up to this level may be proposed.
    pub feature_level: u32,
    /// 0 before the cluster is named.
    pub cluster_id: u64,
    /// A log that ends before this entry has lost something. At most `last_applied`, which a majority may have had on disk
    /// before this member had.
    pub log_needed: u64,
}

/// The head of an empty store. Its revision is 1, as etcd's is.
pub(super) fn new_head() -> StateHead {
    StateHead { format: FORMAT_STATE, revision: 1, next_member_id: 1, ..Default::default() }
}

pub(super) fn load(engine: &dyn Engine, now: Instant) -> Result<(StateHead, LeaseClock, Proposals), StoreError> {
    let view = engine.view();
    let head = match read::head(view.as_ref())? {
        Some(head) => head,
        None => {
            let head = new_head();
            let mut batch = WriteBatch::new();
            put_head(&mut batch, &head);
            engine.write(batch, Durability::Buffered)?;
            head
        }
    };
    if head.format != FORMAT_STATE {
        return Err(StoreError::Corrupt(format!("state has format {}, this release reads {FORMAT_STATE}", head.format)));
    }
    let leases = LeaseClock::restart(view.as_ref(), now)?;
    Ok((head, leases, Proposals::load(view.as_ref())?))
}

pub(super) fn put_head(batch: &mut WriteBatch, head: &StateHead) {
    batch.put(Table::Head, &[], head.encode_to_vec());
}

pub(super) fn entry_id(head: &StateHead) -> Option<EntryId> {
    head.last_applied.as_ref().map(|id| EntryId { term: id.term, index: id.index })
}

pub(super) fn info(head: &StateHead) -> StateInfo {
    StateInfo {
        last_applied: entry_id(head),
        membership: head.membership.clone(),
        revision: head.revision,
        compact_revision: head.compact_revision,
        feature_level: head.feature_level,
        cluster_id: head.cluster_id,
        log_needed: head.log_synced.unwrap_or_else(|| head.last_applied.as_ref().map_or(0, |id| id.index)),
    }
}

/// Whether the entry is the next one; false for one that was applied before.
pub(super) fn follows(head: &StateHead, id: EntryId) -> Result<bool, StoreError> {
    let Some(last) = &head.last_applied else { return Ok(true) };
    if id.index <= last.index {
        return Ok(false);
    }
    if id.index != last.index + 1 || id.term < last.term {
        return Err(StoreError::Halted(format!(
            "entry {} of term {} cannot follow entry {} of term {}",
            id.index, id.term, last.index, last.term
        )));
    }
    Ok(true)
}
