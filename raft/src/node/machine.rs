//! The state machine as openraft sees it: batches of entries in, results out, snapshots as directories.
//!
//! Owns the order of things on disk: a snapshot is on disk before it counts, a state built from it is a new
//! generation beside the old one, and the log may be purged only up to what the state has durably applied
//! ([`MachineShared::durable`]). What a command means is [`crate::mvcc`]'s business.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::storage::EntryResponder;
use openraft::{EntryPayload, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use trireme_proto::store;

use super::applied::{Applied, AppliedAt};
use crate::blocking::blocking;
use crate::engine::Engine;
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::mutant;
use crate::mvcc::{ApplyEntry, EntryBody, EntryId, StateInfo, StateMachine};
use crate::snapshot::{DATA, SnapshotDir, remove_if_present};
use crate::store::datadir::DataDir;
use crate::store::options::Engines;
use crate::types::{
    Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, decode_stored_membership, encode_stored_membership, log_id, log_id_to_proto,
    term_of,
};

/// Entries that become one write batch of the state.
const APPLY_BATCH: usize = 512;
/// Batches of at most this many entries are applied on the receiving thread: handing them over costs two thread switches. The limit is small
/// because their reads may wait for the disk, and heartbeats wait meanwhile.
const APPLY_IN_PLACE: usize = 16;
/// How long the state may lack space before the instance ends. The engine looks for space every five seconds.
const SPACE_PATIENCE: Duration = Duration::from_secs(8);
/// The same while a snapshot is built, for which no client waits.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);
const SPACE_RETRY: Duration = Duration::from_millis(250);

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// openraft's handle on the state machine. Clones share the state.
#[derive(Clone)]
pub struct Machine {
    state: StateMachine,
    shared: Arc<MachineShared>,
    /// How far the log of this instance is on disk.
    log_synced: Option<Arc<AtomicU64>>,
}

/// What outlives a Raft instance.
pub(crate) struct MachineShared {
    cluster_id: u64,
    data_dir: Arc<DataDir>,
    engines: Arc<dyn Engines>,
    generation: Mutex<u64>,
    snapshot: Mutex<Option<SnapshotDir>>,
    /// Replaced states whose engines may still have readers.
    retired: Mutex<Vec<(Weak<dyn Engine>, PathBuf)>>,
    applied: Applied,
    durable: watch::Sender<u64>,
    metrics: Arc<StoreMetrics>,
}

// === impl MachineShared ===

impl MachineShared {
    pub(crate) fn new(
        cluster_id: u64,
        data_dir: Arc<DataDir>,
        engines: Arc<dyn Engines>,
        generation: u64,
        info: &StateInfo,
        metrics: Arc<StoreMetrics>,
    ) -> Result<MachineShared, StoreError> {
        let snapshot = newest_snapshot(&data_dir, &metrics)?;
        let applied = info.last_applied.map(applied_at).unwrap_or_default();
        Ok(MachineShared {
            cluster_id,
            data_dir,
            engines,
            generation: Mutex::new(generation),
            snapshot: Mutex::new(snapshot),
            retired: Mutex::default(),
            applied: Applied::new(applied),
            // Everything that an engine shows after it was opened is on disk.
            durable: watch::Sender::new(applied.index),
            metrics,
        })
    }

    pub(crate) fn applied(&self) -> &Applied {
        &self.applied
    }

    pub(crate) fn durable(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// Last position that the newest snapshot on disk covers.
    pub(crate) fn snapshot_last(&self) -> Result<Option<LogId>, StoreError> {
        let snapshot = self.snapshot.lock().clone();
        snapshot.map_or(Ok(None), |snapshot| Ok(snapshot.meta()?.last_log_id))
    }

    /// The same, of a snapshot that came from another member.
    pub(crate) fn received_last(&self) -> Result<Option<LogId>, StoreError> {
        let snapshot = self.snapshot.lock().clone();
        snapshot.filter(SnapshotDir::is_received).map_or(Ok(None), |snapshot| Ok(snapshot.meta()?.last_log_id))
    }

    /// Moves a sealed snapshot to its final path and supersedes the previous one; returns the current one.
    /// A build that took long never replaces a newer snapshot that was received meanwhile.
    fn keep(&self, snapshot: SnapshotDir) -> Result<SnapshotDir, StoreError> {
        let mut current = self.snapshot.lock();
        let index = |snapshot: &SnapshotDir| snapshot.manifest().last_log_id.as_ref().map(|id| (id.term, id.index));
        match &*current {
            Some(current) if current.path() == snapshot.path() => return Ok(snapshot),
            // A received one says that the log may end before it (see `received_last`): an own one that reaches no further must not hide
            // that, for the log's own mark of it may not be on disk yet.
            Some(newer)
                if index(newer) > index(&snapshot)
                    || index(newer) == index(&snapshot) && newer.is_received() && !snapshot.is_received() =>
            {
                let newer = newer.clone();
                snapshot.supersede();
                return Ok(newer);
            }
            _ => {}
        }
        let last = snapshot.manifest().last_log_id.unwrap_or_default();
        let base = self.data_dir.snapshots();
        // Names are unique: an older snapshot removes its folder when its last handle is dropped, which may be after this one exists.
        let free = std::iter::repeat_with(rand::random::<u64>)
            .take(16)
            .map(|unique| base.join(format!("{}-{}-{unique:016x}", last.term, last.index)))
            .find(|path| !path.exists())
            .ok_or_else(|| StoreError::Io("no free snapshot name".into()))?;
        let kept = snapshot.rename(&free)?;
        if let Some(before) = current.replace(kept.clone()) {
            before.supersede();
        }
        Ok(kept)
    }

    /// The newest snapshot, its files verified again; a damaged one is dropped.
    pub(crate) fn sound_snapshot(&self) -> Option<SnapshotDir> {
        let mut current = self.snapshot.lock();
        let snapshot = current.take()?;
        match SnapshotDir::open(snapshot.path()) {
            Ok(_) => *current = Some(snapshot),
            Err(error) => {
                tracing::error!(%error, path = %snapshot.path().display(), "a snapshot was damaged on disk and is dropped");
                self.metrics.damage.snapshot.fetch_add(1, Ordering::Relaxed);
                snapshot.supersede();
            }
        }
        current.clone()
    }

    /// Lets go of all snapshots made here: what they hold cannot be trusted.
    pub(crate) fn drop_snapshot(&self) {
        if let Some(snapshot) = self.snapshot.lock().take() {
            snapshot.supersede();
        }
    }

    /// Removes the folders of replaced states that have no readers any more.
    pub(crate) fn sweep(&self) {
        self.retired.lock().retain(|(engine, directory)| {
            let in_use = engine.strong_count() > 0 && directory.exists();
            if !in_use && let Err(error) = remove_if_present(directory) {
                tracing::warn!(path = %directory.display(), %error, "cannot remove an old state");
            }
            in_use
        });
    }

    pub(crate) fn raise_durable(&self, index: u64) {
        self.durable.send_if_modified(|durable| {
            let raised = index > *durable;
            *durable = index.max(*durable);
            raised
        });
    }
}

/// The newest snapshot that is whole; the others are removed.
pub(crate) fn newest_snapshot(data_dir: &DataDir, metrics: &StoreMetrics) -> Result<Option<SnapshotDir>, StoreError> {
    let base = data_dir.snapshots();
    let mut best: Option<SnapshotDir> = None;
    for entry in std::fs::read_dir(&base).map_err(|error| StoreError::io(base.display(), error))?.flatten() {
        match SnapshotDir::open(&entry.path()) {
            Ok(snapshot) => {
                let index = |snapshot: &SnapshotDir| snapshot.manifest().last_log_id.as_ref().map_or(0, |id| id.index);
                match best.take() {
                    Some(before) if index(&before) >= index(&snapshot) => {
                        snapshot.supersede();
                        best = Some(before);
                    }
                    before => {
                        before.into_iter().for_each(SnapshotDir::supersede);
                        best = Some(snapshot);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), %error, "removing a damaged snapshot");
                metrics.damage.snapshot.fetch_add(1, Ordering::Relaxed);
                remove_if_present(&entry.path()).map_err(|error| StoreError::io(base.display(), error))?;
            }
        }
    }
    Ok(best)
}

// === impl Machine ===

impl Machine {
    pub(crate) fn new(state: StateMachine, shared: Arc<MachineShared>) -> Machine {
        Machine { state, shared, log_synced: None }
    }

    /// A machine that applies the entries of a log. A member applies what a majority has on disk, whether or not its own log has synced it. The
    /// state records how far the log was synced, so that a power cut in between is not taken for a damaged log.
    pub(crate) fn beside_log(self, log_synced: Arc<AtomicU64>) -> Machine {
        Machine { log_synced: Some(log_synced), ..self }
    }

    /// Applies one batch: a small one here if nothing is in its way, any other on a blocking thread.
    async fn apply_batch(&self, entries: Vec<ApplyEntry>) -> Result<Vec<store::CommandResult>, StoreError> {
        let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(Vec::new()) };
        if let Some(synced) = &self.log_synced
            && !mutant::on("log-position-forgotten")
        {
            self.state.note_log_synced(synced.load(Ordering::Relaxed));
        }
        let (state, now) = (self.state.clone(), Instant::now().into_std());
        let at_once = match entries.len() <= APPLY_IN_PLACE {
            true => self.state.apply_promptly(&entries, now),
            false => Err(StoreError::Busy),
        };
        let results = match at_once {
            Err(StoreError::Busy | StoreError::NoSpace) => with_space(SPACE_PATIENCE, move || state.apply_batch(&entries, now)).await?,
            done => done?,
        };
        self.shared.applied.reached(applied_at(last));
        Ok(results)
    }

    fn install(&self, snapshot: SnapshotDir) -> Result<(), StoreError> {
        let snapshot = self.shared.keep(snapshot)?;
        self.replace_state(Some(&snapshot))
    }

    /// Puts a new generation in the place of the state: what a snapshot holds, or nothing at all. The caller sees to
    /// it that the log leads on from there.
    pub(crate) fn replace_state(&self, snapshot: Option<&SnapshotDir>) -> Result<(), StoreError> {
        let shared = &self.shared;
        let mut generation = shared.generation.lock();
        let next = *generation + 1;
        let directory = shared.data_dir.state_generation(next);
        remove_if_present(&directory).map_err(|error| StoreError::io(directory.display(), error))?;
        if let Some(snapshot) = snapshot {
            shared.engines.restore_state(&snapshot.data(), &directory)?;
        }
        let engine = shared.engines.open_state(&directory)?;
        shared.data_dir.set_state_generation(next)?;
        let before = (Arc::downgrade(&self.state.engine()), shared.data_dir.state_generation(*generation));
        *generation = next;
        let info = self.state.install(engine, Instant::now().into_std())?;
        shared.retired.lock().push(before);
        if let Some(last) = info.last_applied {
            shared.raise_durable(last.index);
        }
        shared.applied.reached(info.last_applied.map(applied_at).unwrap_or_default());
        Ok(())
    }

    /// Takes over a snapshot that was fetched from another member, and its state.
    pub(crate) fn adopt(&self, snapshot: SnapshotDir) -> Result<(), StoreError> {
        // The snapshots of before are not trusted, even if they reach further.
        self.shared.drop_snapshot();
        self.install(snapshot)
    }

    /// Builds a snapshot of the state as it is now.
    pub(crate) fn build(&self) -> Result<Snapshot, StoreError> {
        let shared = &self.shared;
        let path = shared.data_dir.incoming_snapshot();
        std::fs::create_dir_all(&path).map_err(|error| StoreError::io(path.display(), error))?;
        // The log will be purged up to this snapshot: the state itself must be as far on disk.
        if let Some(flushed) = self.state.flush()? {
            shared.raise_durable(flushed.index);
        }
        let info = self.state.checkpoint(&path.join(DATA))?;
        let manifest = store::SnapshotManifest {
            snapshot_id: format!("{:016x}-{}", shared.cluster_id, info.last_applied.map_or(0, |id| id.index)),
            last_log_id: info.last_applied.map(|id| log_id_to_proto(&log_id(id.term, id.index))),
            membership: info.membership.clone(),
            cluster_id: shared.cluster_id,
            revision: info.revision,
            compact_revision: info.compact_revision,
            feature_level: info.feature_level,
            ..store::SnapshotManifest::default()
        };
        let before = shared.snapshot.lock().clone();
        let snapshot = shared.keep(SnapshotDir::seal(&path, manifest, before.as_ref())?)?;
        // Entries applied between flush and checkpoint are in the snapshot, which has been fsynced; the state
        // can be rebuilt from it, so the log may go up to there.
        if let Some(last) = info.last_applied {
            shared.raise_durable(last.index);
        }
        Ok(openraft::Snapshot { meta: snapshot.meta()?, snapshot })
    }
}

impl openraft::storage::RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let info = self.state.info();
        let membership = decode_stored_membership(&info.membership)?;
        Ok((info.last_applied.map(|id| log_id(id.term, id.index)), membership))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        let mut chunks = entries.ready_chunks(APPLY_BATCH);
        while let Some(chunk) = chunks.next().await {
            let mut batch = Vec::with_capacity(chunk.len());
            let mut responders = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                batch.push(to_apply(entry));
                responders.push(responder);
            }
            let results = self.apply_batch(batch).await?;
            for (responder, result) in responders.into_iter().zip(results) {
                if let Some(responder) = responder {
                    responder.send(result);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotDir) -> Result<(), io::Error> {
        let machine = self.clone();
        Ok(with_space(SPACE_PATIENCE, move || machine.install(snapshot.clone())).await?)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // The snapshot is about to be sent or installed: it is verified here rather than refused there.
        let shared = self.shared.clone();
        let snapshot = blocking(move || shared.sound_snapshot()).await?;
        Ok(match snapshot {
            Some(snapshot) => Some(openraft::Snapshot { meta: snapshot.meta()?, snapshot }),
            None => None,
        })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let machine = self.clone();
        Ok(with_space(SNAPSHOT_PATIENCE, move || machine.build()).await?)
    }
}

pub(crate) fn to_apply(entry: Entry) -> ApplyEntry {
    let id = EntryId { term: term_of(&entry.log_id), index: entry.log_id.index() };
    let body = match entry.payload {
        EntryPayload::Blank => EntryBody::Blank,
        EntryPayload::Normal(proposal) => EntryBody::Command(proposal.0),
        EntryPayload::Membership(membership) => {
            EntryBody::Membership(encode_stored_membership(&StoredMembership::new(Some(entry.log_id), membership)))
        }
    };
    ApplyEntry { id, body }
}

fn applied_at(id: EntryId) -> AppliedAt {
    AppliedAt { term: id.term, index: id.index }
}

/// Does again what failed for want of space: an engine that merges its tables takes space for a moment, and is itself
/// again some seconds after it got none. Only a disk that stays full ends the instance.
async fn with_space<T: Send + 'static>(
    patience: Duration,
    work: impl Fn() -> Result<T, StoreError> + Send + Sync + 'static,
) -> Result<T, StoreError> {
    let work = Arc::new(work);
    let deadline = Instant::now() + patience;
    loop {
        let work = work.clone();
        match blocking(move || work()).await.and_then(|result| result) {
            Err(StoreError::NoSpace) if Instant::now() < deadline => tokio::time::sleep(SPACE_RETRY).await,
            result => return result,
        }
    }
}
