//! A Raft instance of a store: what it is made of, and its start over a freshly verified log.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use trireme_proto::store;

use super::core::Core;
use super::datadir::DataDir;
use super::options::Engines;
use crate::error::StoreError;
use crate::log::LogStore;
use crate::node::machine::Machine;
use crate::node::{self, LogRetention};
use crate::types::unplaced;

/// The threads that a store runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Threads {
    /// A runtime and a log writer of its own.
    Own,
    /// The runtime on which it was opened.
    Callers,
}

/// How to start a Raft instance.
pub(super) struct Instance {
    pub(super) engines: Arc<dyn Engines>,
    pub(super) retention: LogRetention,
    pub(super) threads: Threads,
}

/// Starts a Raft instance over a freshly verified log. A founder whose log is empty writes the first configuration.
pub(super) async fn start_instance(
    core: &Arc<Core>,
    instance: &Instance,
    found: Option<&store::MemberRecord>,
) -> Result<LogStore, StoreError> {
    let log = open_log(instance.engines.as_ref(), &core.data_dir, Some(core.machine.durable()), instance.threads)?;
    let config = node::config(core.cluster_id, core.timing, instance.retention)?;
    let machine = Machine::new(core.state.clone(), core.machine.clone()).beside_log(log.synced());
    let pristine = log.is_pristine();
    let raft = node::start(core.node_id, config, core.clients.clone(), log.clone(), machine).await?;
    if let Some(record) = found.filter(|_| pristine) {
        raft.initialize(BTreeMap::from([(core.node_id, unplaced(record.clone()))]))
            .await
            .map_err(|error| StoreError::Corrupt(format!("the cluster cannot be bootstrapped: {error}")))?;
    }
    if log.last_log_id().is_some() && raft.voter_ids().eq([core.node_id]) {
        // No other member can lead: there is no heartbeat to wait for.
        raft.trigger().elect(false).await.map_err(|fatal| StoreError::Io(format!("raft: {fatal}")))?;
    }
    *core.log_engine.lock() = log.engine();
    *core.log_sizes.lock() = log.sizes();
    *core.raft.write() = Some(raft);
    core.status.send_modify(|status| status.failure = None);
    Ok(log)
}

/// Opens and verifies the log.
pub(super) fn open_log(
    engines: &dyn Engines,
    data_dir: &DataDir,
    durable: Option<watch::Receiver<u64>>,
    threads: Threads,
) -> Result<LogStore, StoreError> {
    let engine = engines.open_log(&data_dir.log())?;
    match threads {
        Threads::Own => LogStore::open(engine, durable),
        Threads::Callers => LogStore::open_on_task(engine, durable),
    }
}

/// The message for a removed member, and what it can do.
pub(super) fn removed(member_id: u64, data_dir: &DataDir) -> String {
    format!(
        "member {member_id} was removed from the cluster; to join again as a new member, stop it and empty {}",
        data_dir.path().display()
    )
}
