//! The watch cache: the contents of the store, decoded once for all readers (D5).
//!
//! One task follows the store's local apply stream over all objects and hands every change to the cache of its resource. The
//! same task adds and removes rows, between two batches of events: a new row is loaded at the revision up to which the task
//! has followed, and misses no event.
//! Reads, lists and watches are served from here; only exact revisions, continued lists and watchers that are older than the window
//! of changes go to the store's history. Answers to upstream's `apiserver/pkg/storage/cacher`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use trireme_api::resource::{Definer, Definition};
use trireme_proto::etcd;
use trireme_raft::{Store, WatchError};

pub mod frames;
pub mod index;
pub mod interest;
mod item;
pub mod object;
pub mod resource;
mod windows;

pub use interest::{Interest, Subscription};
pub use object::{Cached, EventType, FRAME_TAIL};
pub use resource::{Change, Changes, ResourceCache};

use crate::catalog::origin::Origin;
use crate::catalog::rows::{Row, Rows};
use crate::error::Error;
use crate::storage::cache::windows::Windows;
use crate::storage::encode;
use crate::storage::keys;
use crate::storage::sealing::Keyring;

/// How many keys one read of the initial load asks for.
const LOAD_PAGE: i64 = 1000;

/// Bytes of changes that the windows of all resources keep together.
const WINDOWS_BYTES: usize = 8 << 20;

/// How many resources objects may define.
const DEFINED_MAX: usize = 5000;

/// How many changes of the rows may wait for the task.
const ROW_CHANGES_MAX: usize = 64;

/// A change of what is served.
enum RowChange {
    /// Load the row of these views and serve them.
    Add(Vec<Arc<Definition>>, oneshot::Sender<Result<Arc<Row>, Error>>),
    /// Stop serving the row of a storage group and plural.
    Remove(String, String, oneshot::Sender<bool>),
}

/// All resource caches and the revision up to which they are filled.
pub struct Cache {
    store: Store,
    keyring: Arc<Keyring>,
    rows: Arc<Rows>,
    ingested: watch::Sender<i64>,
    row_changes: mpsc::Sender<RowChange>,
    /// Objects that could not be decoded, by key: reported, never silently absent.
    damaged: RwLock<HashMap<String, String>>,
}

impl Cache {
    /// Loads everything that the store holds and starts to follow it until `cancel`.
    pub fn start(store: Store, rows: Arc<Rows>, keyring: Arc<Keyring>, cancel: CancellationToken) -> Result<Arc<Cache>, Error> {
        let (row_changes, changes) = mpsc::channel(ROW_CHANGES_MAX);
        let cache = Arc::new(Cache { store, keyring, rows, ingested: watch::channel(0).0, row_changes, damaged: RwLock::default() });
        let revision = cache.load()?;
        tokio::spawn(cache.clone().follow(revision, changes, cancel));
        Ok(cache)
    }

    /// Loads a row for `views`, which share a storage, and serves them. A row and views of the same names are replaced, and
    /// their watches end.
    pub async fn add_row(&self, views: Vec<Arc<Definition>>) -> Result<Arc<Row>, Error> {
        let (done, outcome) = oneshot::channel();
        let stopped = || Error::Option("the watch cache has stopped".to_owned());
        self.row_changes.send(RowChange::Add(views, done)).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }

    /// Stops serving a row and its views; its watches end and its objects stay in the store. False if there is none.
    pub async fn remove_row(&self, group: &str, plural: &str) -> bool {
        let (done, outcome) = oneshot::channel();
        let change = RowChange::Remove(group.to_owned(), plural.to_owned(), done);
        self.row_changes.send(change).await.is_ok() && outcome.await.unwrap_or(false)
    }

    /// Carries out one change of the rows; the task has followed the store up to `revision`.
    fn change_rows(&self, change: RowChange, revision: i64) {
        match change {
            RowChange::Add(views, done) => {
                let added = self.loaded_row(&views, None, revision).inspect(|row| self.rows.insert(views, row.clone()));
                let _ = done.send(added);
            }
            RowChange::Remove(group, plural, done) => {
                let _ = done.send(self.rows.remove(&group, &plural).is_some());
            }
        }
    }

    fn loaded_row(&self, views: &[Arc<Definition>], origin: Option<Origin>, revision: i64) -> Result<Arc<Row>, Error> {
        let row = self.rows.prepare(views, origin).ok_or_else(|| Error::Option("a row needs a definition".to_owned()))?;
        let mut objects = BTreeMap::new();
        let mut damaged = HashMap::new();
        self.read_at(&row.prefix, revision, |key, kv| match self.decode(&row, &key, kv.value, kv.mod_revision, EventType::Added) {
            Ok(object) => {
                objects.insert(key[row.prefix.len()..].into(), Arc::new(object));
            }
            Err(error) => {
                tracing::error!(%error, "stored object is unreadable");
                damaged.insert(key, error);
            }
        })?;
        row.cache.reset(objects, revision);
        self.damaged.write().extend(damaged);
        Ok(row)
    }

    /// Reads all keys below `prefix` at one revision.
    fn read_at(&self, prefix: &str, revision: i64, mut take: impl FnMut(String, etcd::KeyValue)) -> Result<(), Error> {
        let mut request = etcd::RangeRequest {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: keys::prefix_end(prefix.as_bytes()),
            limit: LOAD_PAGE,
            revision,
            ..Default::default()
        };
        if revision <= 0 {
            return Ok(());
        }
        loop {
            let page = self.store.range(&request)?;
            let Some(last) = page.kvs.last() else { break };
            let mut next = last.key.to_vec();
            next.push(0);
            for kv in page.kvs {
                take(String::from_utf8_lossy(&kv.key).into_owned(), kv);
            }
            if !page.more {
                break;
            }
            request.key = next.into();
        }
        Ok(())
    }

    /// The revision up to which the cache is complete.
    pub fn ingested(&self) -> i64 {
        *self.ingested.borrow()
    }

    /// A receiver of the ingested revision.
    pub fn progress(&self) -> watch::Receiver<i64> {
        self.ingested.subscribe()
    }

    /// Waits until the cache has passed `revision`; false if it has not within `patience`.
    pub async fn wait_for(&self, revision: i64, patience: Duration) -> bool {
        if self.ingested() >= revision {
            return true;
        }
        let mut progress = self.progress();
        tokio::time::timeout(patience, progress.wait_for(|at| *at >= revision)).await.is_ok_and(|r| r.is_ok())
    }

    /// How many stored values cannot be decoded.
    pub fn damaged(&self) -> usize {
        self.damaged.read().len()
    }

    /// Decodes one stored value of `row`.
    pub fn decode(&self, row: &Row, key: &str, value: Bytes, revision: i64, frame_type: EventType) -> Result<Cached, String> {
        let mut payload = self.keyring.open(key, value).map_err(|e| e.to_string())?;
        if row.definition.kind.restores() {
            payload = restored(row, &payload).map_err(|e| format!("value of {key}: {e}"))?.into();
        }
        let indexed = index::index(&payload, &row.fields).map_err(|e| format!("value of {key}: {e}"))?;
        let (namespace, name) = row.split_key(key).ok_or_else(|| format!("{key} is no key of {}", row.prefix))?;
        Cached::new(&payload, revision, frame_type, namespace, name, indexed.labels.into(), indexed.fields.into())
            .map_err(|e| format!("value of {key}: {e}"))
    }

    /// Reads all objects at one revision and fills every cache with them.
    fn load(&self) -> Result<i64, Error> {
        let mut by_row: HashMap<String, BTreeMap<Arc<str>, Arc<Cached>>> = HashMap::new();
        let mut damaged = HashMap::new();
        let revision = self.store.revision();
        for row in self.rows.defined() {
            self.rows.remove(row.group(), row.plural());
        }
        self.read_at(keys::OBJECTS, revision, |key, kv| {
            let Some(row) = self.rows.by_key(&key) else { return };
            match self.decode(&row, &key, kv.value, kv.mod_revision, EventType::Added) {
                Ok(object) => {
                    by_row.entry(row.prefix.clone()).or_default().insert(key[row.prefix.len()..].into(), Arc::new(object));
                }
                Err(error) => {
                    tracing::error!(%error, "stored object is unreadable");
                    damaged.insert(key, error);
                }
            }
        })?;
        for row in self.rows.all() {
            row.cache.reset(by_row.remove(&row.prefix).unwrap_or_default(), revision);
        }
        *self.damaged.write() = damaged;
        self.define_all(revision)?;
        self.ingested.send_replace(revision);
        Ok(revision)
    }

    /// Follows the store from `revision` on.
    async fn follow(self: Arc<Self>, mut revision: i64, mut changes: mpsc::Receiver<RowChange>, cancel: CancellationToken) {
        let prefix = Bytes::from_static(keys::OBJECTS.as_bytes());
        let end = keys::prefix_end(&prefix);
        let mut windows = Windows::new(WINDOWS_BYTES);
        loop {
            let ended = match self.store.watch(prefix.clone(), end.clone(), revision + 1) {
                Ok(mut stream) => loop {
                    let batch = tokio::select! {
                        () = cancel.cancelled() => return,
                        Some(change) = changes.recv() => {
                            self.change_rows(change, revision);
                            continue;
                        }
                        batch = stream.next() => batch,
                    };
                    match batch {
                        Ok(batch) => {
                            let mut transactions = batch.events.chunk_by(|a, b| revision_of(a) == revision_of(b));
                            if let Err(error) = transactions.try_for_each(|transaction| self.ingest(transaction, &mut windows)) {
                                break error.to_string();
                            }
                            revision = revision.max(batch.revision);
                            self.ingested.send_if_modified(|at| {
                                batch.revision > *at && {
                                    *at = batch.revision;
                                    true
                                }
                            });
                        }
                        Err(error) => break error.to_string(),
                    }
                },
                Err(error) => error.to_string(),
            };
            if cancel.is_cancelled() {
                return;
            }
            // Compacted under us, or restored from a snapshot: start over. Watchers find their revision outside the
            // window and answer 410.
            tracing::warn!(reason = %ended, "watch cache lost the apply stream, loading again");
            match self.load() {
                Ok(at) => {
                    revision = at;
                    windows.clear();
                }
                Err(error) => {
                    tracing::error!(%error, "watch cache cannot load");
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_millis(200)) => {}
                    }
                }
            }
        }
    }

    /// Takes over all events of one revision. A resource sees its part of them at once: who lists or watches at this
    /// revision must not find half of them (an expiring lease deletes many objects in one transaction).
    /// The resource that an object defines is served before the object is visible.
    fn ingest(&self, events: &[etcd::Event], windows: &mut Windows) -> Result<(), Error> {
        let mut by_row: BTreeMap<String, (Arc<Row>, Vec<Taken>)> = BTreeMap::new();
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let Some(row) = self.rows.by_key(&key) else { continue };
            let name = key[row.prefix.len()..].to_owned();
            let object = if event.r#type == etcd::event::EventType::Delete as i32 {
                self.damaged.write().remove(&key);
                None
            } else {
                let frame_type = if is_new(kv) { EventType::Added } else { EventType::Modified };
                match self.decode(&row, &key, kv.value.clone(), kv.mod_revision, frame_type) {
                    Ok(object) => Some(Arc::new(object)),
                    Err(error) => {
                        tracing::error!(%error, "stored object is unreadable");
                        self.damaged.write().insert(key, error);
                        None
                    }
                }
            };
            by_row.entry(row.prefix.clone()).or_insert_with(|| (row, Vec::new())).1.push((name, object));
        }
        let Some(revision) = events.first().map(revision_of) else { return Ok(()) };
        for (row, changes) in by_row.into_values() {
            if let Some(definer) = &row.definition.definer {
                for (name, object) in &changes {
                    self.redefine(definer.as_ref(), format!("{}{name}", row.prefix), object.as_deref(), revision)?;
                }
            }
            let growth = row.cache.apply_all(revision, changes);
            windows.note(row, revision, growth);
        }
        Ok(())
    }

    /// Makes the rows that the loaded objects define.
    fn define_all(&self, revision: i64) -> Result<(), Error> {
        for row in self.rows.all() {
            let Some(definer) = &row.definition.definer else { continue };
            for object in row.cache.list("", revision, |_| true).0 {
                let key = row.key(&object.namespace, &object.name);
                self.redefine(definer.as_ref(), key, Some(&object), revision)?;
            }
        }
        Ok(())
    }

    /// Brings the row that the object at `key` defines up to its state at `revision`. Only a failure of the store is an error: an
    /// object that cannot be understood leaves its row as it is.
    fn redefine(&self, definer: &dyn Definer, key: String, object: Option<&Cached>, revision: i64) -> Result<(), Error> {
        let known = self.rows.defined_by(&key);
        let object = object.and_then(|object| Some((object.revision, serde_json::from_slice::<Value>(&object.json()).ok()?)));
        let identity = object.as_ref().map(|(_, object)| definer.identity(object));
        let (Some((changed, object)), Some(identity)) = (object, identity) else {
            known.inspect(|row| self.retire(row));
            return Ok(());
        };
        let Some(digest) = identity.digest else {
            known.inspect(|row| self.retire(row));
            return Ok(());
        };
        if let Some(origin) = known.as_ref().and_then(|row| row.origin.as_ref()).filter(|origin| origin.digest == digest) {
            origin.touch(changed, identity.is_closing);
            return Ok(());
        }
        let taken = self.rows.row(&identity.group, &identity.plural).is_some_and(|row| row.origin.as_ref().is_none_or(|o| o.key != key));
        if taken {
            tracing::warn!(%key, group = identity.group, plural = identity.plural, "defines a resource that is served already");
            return Ok(());
        }
        if known.is_none() && self.rows.defined().len() >= DEFINED_MAX {
            tracing::error!(%key, limit = DEFINED_MAX, "too many resources are defined: this one is not served");
            return Ok(());
        }
        match definer.define(&object) {
            Ok(views) => {
                let origin = Origin::new(key, digest, changed, identity.is_closing);
                let row = self.loaded_row(&views, Some(origin), revision)?;
                self.rows.insert(views, row);
            }
            Err(error) => tracing::error!(%key, error, "an object defines no resource"),
        }
        Ok(())
    }

    fn retire(&self, row: &Row) {
        self.rows.remove(row.group(), row.plural());
        self.damaged.write().retain(|key, _| !key.starts_with(&row.prefix));
    }

    /// The changes of one resource after `after`, from the store's history on.
    pub fn history(&self, row: &Row, after: i64) -> Result<History, WatchError> {
        let prefix = Bytes::copy_from_slice(row.prefix.as_bytes());
        let end = keys::prefix_end(&prefix);
        Ok(History { stream: self.store.watch(prefix, end, after + 1)? })
    }

    /// Converts an event to a change; none for a value that cannot be decoded. If the previous object has been compacted, it is unknown
    /// which watchers saw it, so the history cannot be read further.
    fn change_of(&self, row: &Row, event: &etcd::Event) -> Result<Option<Change>, WatchError> {
        let Some(kv) = event.kv.as_ref() else { return Ok(None) };
        if event.prev_kv.is_none() && (event.r#type == etcd::event::EventType::Delete as i32 || !is_new(kv)) {
            return Err(WatchError::Compacted { compact_revision: self.store.compact_revision() });
        }
        Ok(self.decoded_change(row, kv, event))
    }

    fn decoded_change(&self, row: &Row, kv: &etcd::KeyValue, event: &etcd::Event) -> Option<Change> {
        let key = String::from_utf8_lossy(&kv.key);
        let decode = |kv: &etcd::KeyValue, frame_type| {
            self.decode(row, &key, kv.value.clone(), kv.mod_revision, frame_type)
                .inspect_err(|error| tracing::error!(%error, "stored object is unreadable"))
                .ok()
        };
        let previous = event.prev_kv.as_ref().and_then(|prev| decode(prev, EventType::Modified)).map(Arc::new);
        if event.r#type == etcd::event::EventType::Delete as i32 {
            let gone = previous.as_ref()?.restamped(kv.mod_revision, EventType::Deleted);
            return Some(Change {
                revision: kv.mod_revision,
                event_type: EventType::Deleted,
                object: Arc::new(gone),
                previous,
                frames: Arc::default(),
            });
        }
        let event_type = if previous.is_some() { EventType::Modified } else { EventType::Added };
        let object = Arc::new(decode(kv, event_type)?);
        Some(Change { revision: kv.mod_revision, event_type, object, previous, frames: Arc::default() })
    }
}

/// The key of a changed object within its row, and the object now.
type Taken = (String, Option<Arc<Cached>>);

/// A watcher's way through changes that the window no longer holds.
pub struct History {
    stream: trireme_raft::Watch,
}

impl History {
    /// The next changes, and the revision up to which they are all.
    pub async fn next(&mut self, cache: &Cache, row: &Row) -> Result<(Vec<Change>, i64), WatchError> {
        let batch = self.stream.next().await?;
        let changes = batch.events.iter().filter_map(|event| cache.change_of(row, event).transpose()).collect::<Result<_, _>>()?;
        Ok((changes, batch.revision))
    }
}

/// A stored payload as the kind shows it now.
fn restored(row: &Row, payload: &[u8]) -> Result<Vec<u8>, String> {
    let mut object: Value = serde_json::from_slice(payload).map_err(|e| e.to_string())?;
    row.definition.kind.restore(&mut object)?;
    let gvk = row.restored_gvk(&object);
    Ok(encode::payload(&object, &gvk.api_version(), &gvk.kind))
}

fn revision_of(event: &etcd::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Whether a put made its key.
fn is_new(kv: &etcd::KeyValue) -> bool {
    kv.create_revision == kv.mod_revision
}
