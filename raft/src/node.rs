//! One Raft instance: openraft with our log, state machine, network and settings.
//!
//! Owns openraft's configuration and the state machine adapter. An instance may end (a failed fsync); the
//! store outlives it and starts another one over a freshly verified log.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::error::StoreError;
use crate::log::LogStore;
use crate::network::client::{PeerClients, PeerNetwork};
use crate::store::options::Timing;
use crate::types::TypeConfig;

pub(crate) mod applied;
pub mod machine;

use machine::Machine;

/// A running Raft instance.
pub(crate) type RaftNode = openraft::Raft<TypeConfig, Machine>;

/// Entries of one append request.
const MAX_PAYLOAD_ENTRIES: u64 = 512;

/// How often snapshots are made, and how many log entries are kept behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRetention {
    pub(crate) snapshot_every: u64,
    pub(crate) log_kept: u64,
}

/// openraft's settings for these clocks.
pub(crate) fn config(cluster_id: u64, timing: Timing, retention: LogRetention) -> Result<Config, StoreError> {
    let millis = |duration: std::time::Duration| duration.as_millis() as u64;
    let election_max = millis(timing.election_max);
    let config = Config {
        cluster_name: format!("{cluster_id:016x}"),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: election_max,
        max_payload_entries: MAX_PAYLOAD_ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(retention.snapshot_every.max(1)),
        max_in_snapshot_log_to_keep: retention.log_kept,
        // More than what is kept behind a snapshot is not in the log any more.
        replication_lag_threshold: retention.snapshot_every.saturating_add(retention.log_kept).max(1000),
        install_snapshot_timeout: 60_000,
        purge_batch_size: 256,
        // Design D4: no leader without an election of its own, no candidate that cannot win, none that
        // gets no answer, and no follower whose log went backwards.
        enable_leader_restore: Some(false),
        enable_pre_vote: Some(true),
        allow_log_reversion: Some(false),
        quorum_loss_probe_interval: Some(election_max * 2),
        // Followers write an entry while the leader does: one sync and one way in a row, not two syncs and one way.
        broadcast_submitted_on_append: Some(true),
        backoff: "100ms 200ms 400ms ...1s".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| StoreError::Invalid(format!("raft timing: {error}")))
}

/// Starts an instance. Must run on the runtime that it is to live on.
pub(crate) async fn start(
    node_id: u64,
    config: Config,
    clients: Arc<PeerClients>,
    log: LogStore,
    machine: Machine,
) -> Result<RaftNode, StoreError> {
    let network = PeerNetwork { clients, log_end: log.end() };
    openraft::Raft::new(node_id, Arc::new(config), network, log, machine)
        .await
        .map_err(|fatal| StoreError::Corrupt(format!("raft does not start: {fatal}")))
}
