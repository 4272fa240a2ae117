//! Opening a store, and the runtime that Raft lives on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_proto::store;

use super::core::Core;
use super::datadir::{DataDir, MemberFile};
use super::forward::Forwarder;
use super::instance::{Instance, Threads, open_log, removed, start_instance};
use super::options::{Engines, JoinTicket, Listen, StoreOptions, Timing, WhenEmpty};
use super::read_batch::ReadBatcher;
use super::space::Space;
use super::status::{Contact, StoreStatus};
use super::tasks::{self, TaskParts};
use crate::backup::Origin;
use crate::engine::memory::MemoryEngine;
use crate::engine::metered::MeteredEngines;
use crate::error::StoreError;
use crate::log::LogStore;
use crate::metrics::StoreMetrics;
use crate::mvcc::{Fault, FaultKind, MvccOptions, StateMachine};
use crate::network::client::PeerClients;
use crate::network::directory::PeerDirectory;
use crate::network::listener::accept_peers;
use crate::network::service;
use crate::network::transport::{Tcp, Transport};
use crate::node::LogRetention;
use crate::node::machine::{Machine, MachineShared};
use crate::snapshot::{SnapshotDir, remove_if_present};
use crate::types::{log_id, unplaced};

/// How long a stopping store waits for its threads, and then for its databases to be closed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Ended connections that wait to be looked at; the rest goes unnoticed.
const LOST_QUEUE: usize = 64;

/// Raft's own threads, where it has some. [`RaftRuntime::stop`] ends them in order; dropping it abandons them without waiting.
pub(super) struct RaftRuntime {
    runtime: Mutex<Option<Runtime>>,
    /// How many engines of this store are open.
    open_engines: watch::Receiver<usize>,
}

pub(super) async fn open(options: StoreOptions) -> Result<(Arc<Core>, RaftRuntime), StoreError> {
    let own_record = options.member_record();
    let (transport, threads) = bind(options.listen)?;
    let Timing { heartbeat, election_min, election_max, .. } = options.timing;
    tracing::info!(?heartbeat, ?election_min, ?election_max, "the store's clocks");
    let metrics = Arc::new(StoreMetrics::new());
    let metered = MeteredEngines::new(options.engines, metrics.clone());
    let open_engines = metered.open_count();
    let engines: Arc<dyn Engines> = Arc::new(metered);
    let (data_dir, member) = DataDir::open(&options.data_dir)?;
    let data_dir = Arc::new(data_dir);
    let member = match member {
        Some(member) => member,
        None => settle(&data_dir, &options.when_empty)?,
    };
    if member.removed {
        return Err(StoreError::Invalid(removed(member.node_id, &data_dir)));
    }
    let log = open_log(engines.as_ref(), &data_dir, None, threads).map_err(|error| data_dir.lost(error))?;
    let opened = match member.started && log.is_pristine() {
        true => Err(data_dir.lost(StoreError::Corrupt("it is empty although this member has voted".into()))),
        false => open_state(&engines, &data_dir, &member, &log, &metrics).await,
    };
    log.close();
    let (state, machine) = opened?;

    let directory = Arc::new(PeerDirectory::new(member.node_id, seeds(&member)?));
    directory.update(crate::types::decode_stored_membership(&state.info().membership)?.membership());
    check_own_key(&directory, &member, options.identity.spki_sha256(), &data_dir)?;
    let clients = Arc::new(PeerClients::new(
        member.node_id,
        member.cluster_id,
        options.identity.clone(),
        transport.clone(),
        directory.clone(),
        options.timing.rpc,
        options.timing.rpc,
        metrics.clone(),
    ));
    let (reads, reads_waiting) = ReadBatcher::new();
    let (leader_reads, leader_reads_waiting) = ReadBatcher::new();
    let (forwarder, proposals) = Forwarder::new();
    let (lost_peers, lost) = mpsc::channel(LOST_QUEUE);
    let space = Space::new(data_dir.path(), &options.upkeep);
    space.look(state.size_bytes());
    let status = StoreStatus { node_id: member.node_id, cluster_id: member.cluster_id, ..StoreStatus::default() };
    let core = Arc::new(Core {
        cluster_id: member.cluster_id,
        node_id: member.node_id,
        timing: options.timing,
        data_dir,
        directory: directory.clone(),
        clients,
        contact: Contact::default(),
        state,
        machine,
        metrics,
        status: watch::Sender::new(status),
        leader: watch::Sender::new(None),
        reads,
        leader_reads,
        forwarder,
        space,
        log_engine: Mutex::new(Weak::<MemoryEngine>::new()),
        log_sizes: Mutex::default(),
        raft: RwLock::new(None),
        membership: tokio::sync::Mutex::new(()),
        origin: RwLock::new(Origin { version: options.version, member_name: options.name, notes: Vec::new() }),
        cancel: CancellationToken::new(),
    });
    let parts = TaskParts {
        reads: reads_waiting,
        leader_reads: leader_reads_waiting,
        proposals,
        lost,
        instance: Instance {
            engines,
            retention: LogRetention { snapshot_every: options.snapshot_every, log_kept: options.log_kept },
            threads,
        },
        own_record,
        founder: member.founder,
        upkeep: options.upkeep,
    };
    let tls = options.identity.server_config()?;
    let runtime = RaftRuntime::new(threads, open_engines)?;
    let for_runtime = core.clone();
    let started = runtime.spawn(async move {
        let core = for_runtime;
        let listener = transport.listen().map_err(|error| StoreError::io("peer listener", error))?;
        let connections = accept_peers(listener, tls, directory, lost_peers, core.cancel.clone());
        let sound = core.state.fault().borrow().is_none();
        let log = match sound {
            true => match start_instance(&core, &parts.instance, parts.founder.then_some(&parts.own_record)).await {
                Ok(log) => Some(log),
                // Applying the end of the log met damage in the state: that is healed, here as later.
                Err(error) if core.state.fault().borrow().is_some() => {
                    tracing::error!(%error, "the state is damaged");
                    core.metrics.damage.state.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(error) => return Err(error),
            },
            false => None,
        };
        tokio::spawn(service::serve(core.clone(), connections, core.cancel.clone()));
        tasks::spawn(core, parts, log);
        Ok(())
    });
    let started = started.await.map_err(|error| StoreError::io("raft start", error)).and_then(|result| result);
    if let Err(error) = started {
        core.cancel.cancel();
        runtime.stop(&core).await;
        return Err(error);
    }
    Ok((core, runtime))
}

/// A member is its key: with another one this is another server's folder, or another cluster's. Its peers would refuse it; alone it
/// would serve what is not its own.
fn check_own_key(directory: &PeerDirectory, member: &MemberFile, key: &Bytes, data_dir: &DataDir) -> Result<(), StoreError> {
    match directory.get(member.node_id) {
        Some(own) if !own.spki.is_empty() && own.spki != *key => Err(StoreError::Invalid(format!(
            "data directory {}: its store is of member {} ({}) of cluster {:016x}, which has another key than this server: it is another server's or another cluster's; put this server's own back, or let it join again with an empty one",
            data_dir.path().display(),
            member.node_id,
            own.name,
            member.cluster_id
        ))),
        _ => Ok(()),
    }
}

fn bind(listen: Listen) -> Result<(Arc<dyn Transport>, Threads), StoreError> {
    let (listener, what) = match listen {
        Listen::Transport(transport) => return Ok((transport, Threads::Callers)),
        Listen::Socket(listener) => (Ok(listener), "the given socket".to_owned()),
        Listen::Address(address) => (std::net::TcpListener::bind(address), address.to_string()),
    };
    let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let listener = listener.map_err(|error| StoreError::Invalid(format!("cannot listen for peers on {what}: {error}")))?;
    Ok((Arc::new(Tcp::new(listener)), Threads::Own))
}

/// Makes an empty folder the folder of a member.
fn settle(data_dir: &DataDir, when_empty: &WhenEmpty) -> Result<MemberFile, StoreError> {
    match when_empty {
        WhenEmpty::Initialize => data_dir.write_member(rand::random_range(1..=u64::MAX), 1, None),
        WhenEmpty::Join(ticket) => data_dir.write_member(ticket.cluster_id(), ticket.node_id(), Some(&ticket.to_bytes())),
        WhenEmpty::Refuse => {
            Err(StoreError::Invalid(format!("data directory {} is empty: there is no member to restart", data_dir.path().display())))
        }
    }
}

/// URLs of the other members' API servers, as far as the folder of a store says: for a member that has to join again.
#[must_use]
pub fn other_servers(data_dir: &Path) -> Vec<String> {
    let member = DataDir::member_in(data_dir);
    let ticket = member.as_ref().and_then(|member| hex::decode(&member.ticket).ok());
    let ticket = ticket.and_then(|bytes| JoinTicket::from_bytes(Bytes::from(bytes)).ok());
    let joined = ticket.map(|ticket| ticket.0.members).unwrap_or_default();
    // A founder has no ticket; its snapshots know the members.
    let kept = newest_snapshot_membership(&data_dir.join("snapshot")).unwrap_or_default();
    let own = member.map_or(0, |member| member.node_id);
    let others = kept.into_iter().chain(joined).filter(|record| record.id != own);
    let mut urls: Vec<String> = others.filter_map(|record| record.addresses).flat_map(|addresses| addresses.api).collect();
    let mut seen = std::collections::HashSet::new();
    urls.retain(|url| seen.insert(url.clone()));
    urls
}

fn newest_snapshot_membership(snapshots: &Path) -> Option<Vec<store::MemberRecord>> {
    let found = std::fs::read_dir(snapshots).ok()?.flatten().filter_map(|entry| SnapshotDir::open(&entry.path()).ok());
    let newest = found.max_by_key(|snapshot| snapshot.manifest().last_log_id.as_ref().map(|id| (id.term, id.index)))?;
    let stored = crate::types::decode_stored_membership(&newest.manifest().membership).ok()?;
    Some(crate::types::membership_to_proto(stored.membership()).members)
}

/// The members that the join ticket named.
fn seeds(member: &MemberFile) -> Result<BTreeMap<u64, store::MemberRecord>, StoreError> {
    if member.ticket.is_empty() {
        return Ok(BTreeMap::new());
    }
    let bytes = hex::decode(&member.ticket).map_err(|error| StoreError::Corrupt(format!("join ticket: {error}")))?;
    let ticket = JoinTicket::from_bytes(Bytes::from(bytes))?;
    Ok(ticket.0.members.into_iter().map(|record| (record.id, unplaced(record))).collect())
}

/// Opens the state. Damage that is confined to it is healed from the newest snapshot and the log.
async fn open_state(
    engines: &Arc<dyn Engines>,
    data_dir: &Arc<DataDir>,
    member: &MemberFile,
    log: &LogStore,
    metrics: &Arc<StoreMetrics>,
) -> Result<(StateMachine, Arc<MachineShared>), StoreError> {
    let (generation, directory) = data_dir.state()?;
    let opened = try_open_state(engines.as_ref(), &directory, member);
    let (state, generation) = match opened {
        Ok(state) => (state, generation),
        Err(error) => {
            tracing::error!(%error, "the state is damaged and is rebuilt from snapshot and log");
            metrics.damage.state.fetch_add(1, Ordering::Relaxed);
            let next = generation + 1;
            let directory = data_dir.state_generation(next);
            remove_if_present(&directory).map_err(|error| StoreError::io(directory.display(), error))?;
            let state = try_open_state(engines.as_ref(), &directory, member)?;
            data_dir.set_state_generation(next)?;
            (state, next)
        }
    };
    let info = state.info();
    let machine = Arc::new(MachineShared::new(member.cluster_id, data_dir.clone(), engines.clone(), generation, &info, metrics.clone())?);
    let applied = info.last_applied.map(|id| log_id(id.term, id.index));
    let ends = log.last_log_id().map_or(0, |id| id.index());
    // Invariant: what was synced in the log when an entry was applied is in the log, and what the log no longer has is in
    // a snapshot. A snapshot from the leader is installed before the log is purged up to it: a crash in between
    // loses nothing.
    if info.log_needed > ends.max(machine.received_last()?.map_or(0, |id| id.index())) {
        let needed = info.log_needed;
        return Err(data_dir.lost(StoreError::Corrupt(format!("it ends at entry {ends}, and {needed} had been on disk"))));
    }
    if applied > log.last_log_id().max(machine.snapshot_last()?) {
        // Others had on disk what this member applied, and it lost power before it had. Raft lets the log begin behind
        // it, which it may when a snapshot reaches as far.
        tracing::warn!(ends, ?applied, "the log ends before the state: it lost what had not been synced");
        Machine::new(state.clone(), machine.clone()).build()?;
    }
    let reachable = applied.max(machine.snapshot_last()?);
    if log.purged() > reachable {
        metrics.damage.state.fetch_add(1, Ordering::Relaxed);
        state.condemn(Fault { kind: FaultKind::Damaged, reason: "neither state nor snapshot reaches the start of the log".into() });
    }
    Ok((state, machine))
}

fn try_open_state(engines: &dyn Engines, directory: &Path, member: &MemberFile) -> Result<StateMachine, StoreError> {
    let engine = engines.open_state(directory)?;
    let options = MvccOptions { watch_ring_bytes: engines.watch_ring_bytes(), ..MvccOptions::default() };
    let state = StateMachine::open(engine, &options, Instant::now().into_std())?;
    let cluster_id = state.info().cluster_id;
    if cluster_id != 0 && cluster_id != member.cluster_id {
        return Err(StoreError::Corrupt(format!("the state is of cluster {cluster_id:016x}")));
    }
    Ok(state)
}

// === impl RaftRuntime ===

impl RaftRuntime {
    fn new(threads: Threads, open_engines: watch::Receiver<usize>) -> Result<RaftRuntime, StoreError> {
        let runtime = match threads {
            Threads::Callers => None,
            Threads::Own => Some(
                // Two threads only where there is room for them: they would mostly wake each other.
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 2) { 2 } else { 1 })
                    .thread_name("trireme-raft")
                    .enable_all()
                    .build()
                    .map_err(|error| StoreError::io("raft runtime", error))?,
            ),
        };
        Ok(RaftRuntime { runtime: Mutex::new(runtime), open_engines })
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        match self.runtime.lock().as_ref() {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }

    /// Ends Raft, its tasks and its threads, and waits until the engines are closed: what follows may open the folder again, or end the process,
    /// and RocksDB must not be at work while a process destroys its statics.
    pub(super) async fn stop(&self, core: &Core) {
        let raft = core.raft.write().take();
        if let Some(raft) = raft {
            // A panicked core has nothing more to end.
            let _ = raft.shutdown().await;
            let metrics = raft.metrics();
            tracing::info!(term = metrics.borrow_watched().current_term, "raft has stopped");
        }
        // On the caller's runtime the tasks end when it runs them, and its owner may still read the state.
        let Some(runtime) = self.runtime.lock().take() else { return };
        let state = core.state.clone();
        let ended = tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(STOP_LIMIT);
            drop(state.release());
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "raft's threads did not end in order");
        }
        let mut open = self.open_engines.clone();
        // An error means that the counter is gone, and all engines with it.
        if tokio::time::timeout(STOP_LIMIT, open.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!(open = *open.borrow(), "databases are still open {} s after the store has stopped", STOP_LIMIT.as_secs());
        }
    }
}

impl Drop for RaftRuntime {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which panics on a thread that runs asynchronous code.
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}
