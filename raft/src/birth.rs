//! A cluster of one, founded over a state that is there already: the last part of restore and of reset.
//!
//! Owns what such a store's folder must hold so that it starts as any other: the log begins behind an entry that never
//! was, and everything before it is in the snapshot, so that members that join later get the whole state and not only
//! what is written from now on. The member file is written last: a folder without one is unfinished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trireme_proto::store;

use crate::engine::Engine;
use crate::error::StoreError;
use crate::log;
use crate::mvcc::{EntryId, NewCluster, StateInfo, place, reset_state};
use crate::snapshot::{DATA, SnapshotDir, sync_tree};
use crate::store::datadir::DataDir;
use crate::store::options::Engines;
use crate::types::{Membership, StoredMembership, encode_stored_membership, log_id, log_id_to_proto, unplaced};

/// What has just been done, for whoever follows the work. An error from there ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The survivor's state was copied.
    Copied,
    /// What its log has beyond the state was applied to the copy.
    Applied,
    /// The state is that of a new cluster.
    Reset,
    /// The snapshot for joining members is there.
    Snapshot,
    /// The empty log is there.
    Log,
    /// The new folder is complete.
    Complete,
    /// The old folder was moved aside.
    MovedAside,
    /// The new folder is in its place.
    InPlace,
}

/// Told of each step.
pub type Progress<'a> = &'a mut dyn FnMut(Step) -> Result<(), StoreError>;

/// Makes a cluster of one of the state in `engine`, which is the current one of `data_dir`. `after` is the last entry of
/// the log that there was.
pub(crate) fn found_over(
    engines: &dyn Engines,
    data_dir: &DataDir,
    engine: Arc<dyn Engine>,
    after: EntryId,
    progress: Progress<'_>,
) -> Result<NewCluster, StoreError> {
    let cluster = reset_state(engine.as_ref(), rand::random_range(1..=u64::MAX))?;
    // A term and an index that nobody has used: nothing of the old log can be mistaken for the new one's.
    let at = EntryId { term: after.term + 1, index: after.index + 1 };
    let alone = Membership::new(
        vec![BTreeSet::from([cluster.node_id])],
        BTreeMap::from([(cluster.node_id, unplaced(store::MemberRecord::default()))]),
    )
    .map_err(|error| StoreError::Corrupt(format!("membership: {error}")))?;
    let membership = StoredMembership::new(Some(log_id(at.term, at.index)), alone);
    let info = place(engine.as_ref(), at, encode_stored_membership(&membership))?;
    progress(Step::Reset)?;
    keep_snapshot(data_dir, engine.as_ref(), &info)?;
    drop(engine);
    progress(Step::Snapshot)?;
    let log = engines.open_log(&data_dir.log())?;
    log::begin_after(log.as_ref(), at, cluster.node_id)?;
    drop(log);
    progress(Step::Log)?;
    sync_tree(data_dir.path()).map_err(|error| StoreError::io(data_dir.path().display(), error))?;
    data_dir.write_member(cluster.cluster_id, cluster.node_id, None)?;
    data_dir.mark_started()?;
    progress(Step::Complete)?;
    Ok(cluster)
}

fn keep_snapshot(data_dir: &DataDir, engine: &dyn Engine, info: &StateInfo) -> Result<(), StoreError> {
    let last = info.last_applied.map(|id| log_id(id.term, id.index));
    let index = info.last_applied.map_or(0, |id| id.index);
    let path = data_dir.snapshots().join(format!("{index}-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&path).map_err(|error| StoreError::io(path.display(), error))?;
    engine.checkpoint(&path.join(DATA))?;
    let manifest = store::SnapshotManifest {
        snapshot_id: format!("{:016x}-{index}", info.cluster_id),
        last_log_id: last.as_ref().map(log_id_to_proto),
        membership: info.membership.clone(),
        cluster_id: info.cluster_id,
        revision: info.revision,
        compact_revision: info.compact_revision,
        feature_level: info.feature_level,
        ..store::SnapshotManifest::default()
    };
    SnapshotDir::seal(&path, manifest).map(drop)
}
