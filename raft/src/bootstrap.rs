//! Bootstraps a cluster of one member over an existing state: the last part of restore and of reset.
//!
//! Owns what the folder of such a store must hold: a log that begins behind an entry which never existed, and a snapshot with everything
//! before it, so that members which join later receive the whole state. The member file is written last: a folder without one is incomplete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trireme_proto::store;

use crate::engine::{Engine, Table};
use crate::error::StoreError;
use crate::log;
use crate::mvcc::{EntryId, NewCluster, StateInfo, place, reset_state};
use crate::snapshot::{DATA, SnapshotDir, sync_tree};
use crate::store::datadir::DataDir;
use crate::store::options::Engines;
use crate::types::{Membership, StoredMembership, encode_stored_membership, log_id, log_id_to_proto, unplaced};

/// A step that is complete. The callback that receives it may end the work with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The survivor's state was copied.
    Copied,
    /// Entries of its log beyond the state were applied to the copy.
    Applied,
    /// The state has the identity of a new cluster.
    Reset,
    /// The snapshot for joining members was written.
    Snapshot,
    /// The empty log was written.
    Log,
    /// The new folder is complete.
    Complete,
    /// The old folder was moved aside.
    MovedAside,
    /// The new folder was renamed to its final name.
    InPlace,
}

/// Called after each step.
pub type Progress<'a> = &'a mut dyn FnMut(Step) -> Result<(), StoreError>;

/// Bootstraps a cluster of one over the state in `engine`, the current state of `data_dir`. `after` is the last entry of the previous log.
pub(crate) fn bootstrap_over(
    engines: &dyn Engines,
    data_dir: &DataDir,
    engine: Arc<dyn Engine>,
    after: EntryId,
    progress: Progress<'_>,
) -> Result<NewCluster, StoreError> {
    let cluster = reset_state(engine.as_ref(), rand::random_range(1..=u64::MAX))?;
    // A term and an index that were never used: no entry of the old log can be mistaken for one of the new log.
    let start = EntryId { term: after.term + 1, index: after.index + 1 };
    let alone = Membership::new(
        vec![BTreeSet::from([cluster.node_id])],
        BTreeMap::from([(cluster.node_id, unplaced(store::MemberRecord::default()))]),
    )
    .map_err(|error| StoreError::Corrupt(format!("membership: {error}")))?;
    let membership = StoredMembership::new(Some(log_id(start.term, start.index)), alone);
    let info = place(engine.as_ref(), start, encode_stored_membership(&membership))?;
    progress(Step::Reset)?;
    keep_snapshot(data_dir, engine.as_ref(), &info)?;
    drop(engine);
    progress(Step::Snapshot)?;
    let log = engines.open_log(&data_dir.log())?;
    log::begin_after(log.as_ref(), start, cluster.node_id)?;
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
    engine.checkpoint(&path.join(DATA), Table::Head, &[])?;
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
    SnapshotDir::seal(&path, manifest, None).map(drop)
}
