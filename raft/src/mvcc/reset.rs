//! Gives a state the identity of a new cluster, for restore and reset: what is kept, what is dropped, and why clients and members of the
//! old cluster cannot mistake it for theirs (D10).

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::store::{LogId, MemberRecord};

use super::head::{info, new_head, put_head};
use super::{EntryId, StateInfo, lease, read};
use crate::StoreError;
use crate::engine::{Durability, Engine, Table, WriteBatch};

/// By how much restore and reset raise the revision: more than any client can have seen of the lost future.
pub const RESET_REVISION_STEP: i64 = 1_000_000_000;

/// What [`reset_state`] makes.
#[derive(Clone, PartialEq, Debug)]
pub struct NewCluster {
    /// Its id.
    pub cluster_id: u64,
    /// The id of its only member. Fresh: ids stay used up.
    pub node_id: u64,
    /// Its revision, which is also the oldest that can be read.
    pub revision: i64,
}

/// Makes another cluster of the state in `engine`, for restore and reset: a new cluster id, one member without a key
/// yet, no place in a log, and a revision so far on that no client has seen it, with everything before compacted.
///
/// Watches on older states break by the new epoch. [`place`] has to follow.
pub fn reset_state(engine: &dyn Engine, cluster_id: u64) -> Result<NewCluster, StoreError> {
    let mut head = read::head(engine.view().as_ref())?.unwrap_or_else(new_head);
    let node_id = head.next_member_id.max(1);
    head.next_member_id = node_id + 1;
    head.revision += RESET_REVISION_STEP;
    head.compact_revision = head.revision;
    head.cluster_id = cluster_id;
    head.epoch += 1;
    head.last_applied = None;
    head.log_synced = None;
    head.membership = Bytes::new();
    let mut batch = WriteBatch::new();
    for table in [Table::Member, Table::Holder, Table::Proposal] {
        batch.delete_range(table, &[], None);
    }
    // The member records its key, name and addresses when it starts: they may differ by then.
    let member = MemberRecord { id: node_id, feature_level: head.feature_level, ..MemberRecord::default() };
    batch.put(Table::Member, &node_id.to_be_bytes(), member.encode_to_vec());
    // No client could keep a lease alive while the cluster was down: every lease starts again with its full TTL.
    for lease in lease::all(engine.view().as_ref())? {
        lease::refresh(&mut batch, lease);
    }
    put_head(&mut batch, &head);
    engine.write(batch, Durability::Buffered)?;
    engine.flush()?;
    Ok(NewCluster { cluster_id, node_id, revision: head.revision })
}

/// Records in the state that it is as of entry `at`, and the membership at that entry. The log begins after it.
pub fn place(engine: &dyn Engine, at: EntryId, membership: Bytes) -> Result<StateInfo, StoreError> {
    let mut head = read::head(engine.view().as_ref())?.unwrap_or_else(new_head);
    head.last_applied = Some(LogId { term: at.term, index: at.index });
    head.log_synced = None;
    head.membership = membership;
    let mut batch = WriteBatch::new();
    put_head(&mut batch, &head);
    engine.write(batch, Durability::Buffered)?;
    engine.flush()?;
    Ok(info(&head))
}
