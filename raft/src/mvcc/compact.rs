//! Compaction: the floor below which history may be removed, and its removal in small steps.
//!
//! The floor is the minimum over *holders*: the retention policy, and readers of history
//! (a paginated list, a backup). Moving the floor is a command and the same everywhere; removing what lies below
//! is each member's own business, done in steps between applies, and never visible in an answer.

use prost::Message as _;
use trireme_proto::store::{ChangeRecord, CompactCommand, CompactResult, HoldCommand, HolderRecord, StateHead};

use super::keys::{change_key, change_revision, lease_key, versioned_key};
use super::read;
use super::stage::Stage;
use crate::StoreError;
use crate::engine::{Read, Table, WriteBatch};

/// The holder of compactions that name none.
pub const POLICY: &str = "policy";

/// How many holders there may be.
const MAX_HOLDERS: usize = 1024;

pub(crate) fn compact(stage: &mut Stage<'_>, compact: &CompactCommand) -> Result<CompactResult, StoreError> {
    let name = if compact.holder.is_empty() { POLICY } else { &compact.holder };
    let current = stage.head.revision;
    if compact.revision > current {
        return Err(StoreError::FutureRevision { requested: compact.revision, current });
    }
    if compact.revision <= stage.head.compact_revision {
        return Err(StoreError::Compacted { compact_revision: stage.head.compact_revision });
    }
    let lease = lookup(stage, name)?.map_or(0, |holder| holder.lease);
    store(stage, &HolderRecord { name: name.to_owned(), revision: compact.revision, lease });
    raise_floor(stage)
}

pub(crate) fn hold(stage: &mut Stage<'_>, hold: &HoldCommand) -> Result<CompactResult, StoreError> {
    if hold.holder.is_empty() || hold.holder == POLICY {
        return Err(StoreError::Invalid(format!("holder name {:?} is reserved", hold.holder)));
    }
    if hold.revision == 0 {
        stage.delete(Table::Holder, hold.holder.as_bytes());
        return raise_floor(stage);
    }
    if hold.revision < stage.head.compact_revision {
        return Err(StoreError::Compacted { compact_revision: stage.head.compact_revision });
    }
    if hold.revision > stage.head.revision {
        return Err(StoreError::FutureRevision { requested: hold.revision, current: stage.head.revision });
    }
    if hold.lease != 0 && stage.get(Table::Lease, &lease_key(hold.lease))?.is_none() {
        return Err(StoreError::LeaseNotFound(hold.lease));
    }
    if lookup(stage, &hold.holder)?.is_none() && all(stage)?.len() >= MAX_HOLDERS {
        return Err(StoreError::Invalid(format!("there are {MAX_HOLDERS} holders already")));
    }
    store(stage, &HolderRecord { name: hold.holder.clone(), revision: hold.revision, lease: hold.lease });
    raise_floor(stage)
}

fn lookup(read: &dyn Read, name: &str) -> Result<Option<HolderRecord>, StoreError> {
    read.get(Table::Holder, name.as_bytes())?.map(|bytes| read::decode("holder", &bytes)).transpose()
}

fn store(stage: &mut Stage<'_>, holder: &HolderRecord) {
    stage.put(Table::Holder, holder.name.as_bytes(), holder.encode_to_vec());
}

pub(crate) fn all(read: &dyn Read) -> Result<Vec<HolderRecord>, StoreError> {
    let mut holders = Vec::new();
    let mut cursor = read.cursor(Table::Holder, &[], None)?;
    while let Some((_, record)) = cursor.entry() {
        holders.push(read::decode("holder", record)?);
        cursor.advance()?;
    }
    Ok(holders)
}

/// Moves the floor to the minimum over holders. Without a policy there is no compaction.
pub(crate) fn raise_floor(stage: &mut Stage<'_>) -> Result<CompactResult, StoreError> {
    let holders = all(stage)?;
    if holders.iter().any(|holder| holder.name == POLICY)
        && let Some(floor) = holders.iter().map(|holder| holder.revision).min()
    {
        stage.head.compact_revision = stage.head.compact_revision.max(floor);
    }
    Ok(CompactResult { compact_revision: stage.head.compact_revision })
}

/// Removes what the next `max_changes` changes below the floor replaced. Returns the writes and the revision up
/// to which removal is complete with them.
///
/// A past version is needed as long as a readable revision lies before its end, so the change that ended it
/// at or below the floor takes it away. Changes below the floor go too; the floor's own stay, so that a
/// watch may start there.
pub(crate) fn remove_step(read: &dyn Read, head: &StateHead, max_changes: usize) -> Result<(WriteBatch, i64), StoreError> {
    let floor = head.compact_revision;
    let mut batch = WriteBatch::new();
    let mut reached = floor;
    let mut cursor = read.cursor(Table::Change, &change_key(head.compacted_to, 0), Some(&change_key(floor + 1, 0)))?;
    let mut changes = 0;
    let mut last = head.compacted_to;
    while let Some((key, record)) = cursor.entry() {
        let revision = change_revision(key)?;
        if changes >= max_changes && revision != last {
            reached = last;
            break;
        }
        changes += 1;
        last = revision;
        let change: ChangeRecord = read::decode("change", record)?;
        if change.previous_revision > 0 {
            let past = versioned_key(&change.key, change.previous_revision);
            batch.delete(Table::Past, &past);
            batch.delete(Table::Value, &past);
        }
        if revision < floor {
            batch.delete(Table::Change, key);
        }
        cursor.advance()?;
    }
    Ok((batch, reached))
}
