//! The watch cache: what the store holds, decoded once for everybody (D5).
//!
//! One task follows the store's local apply stream over all objects and hands every change to the cache of its resource.
//! Reads, lists and watches are served from here; only exact revisions, continued lists and watchers that fell behind go to
//! the store's history. Answers to upstream's `apiserver/pkg/storage/cacher`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_proto::etcd;
use trireme_raft::{Store, WatchError};

pub mod index;
pub mod object;
pub mod resource;

pub use object::{Cached, EventType, FRAME_TAIL};
pub use resource::{Change, Changes, ResourceCache};

use crate::error::Error;
use crate::keys;
use crate::rows::{Row, Rows};
use crate::sealing::Keyring;

/// How many keys one read of the initial load asks for.
const LOAD_PAGE: i64 = 1000;

/// All resource caches and the revision up to which they are filled.
pub struct Cache {
    store: Store,
    keyring: Arc<Keyring>,
    rows: Arc<Rows>,
    ingested: watch::Sender<i64>,
    /// Objects that could not be decoded, by key: reported, never silently absent.
    damaged: RwLock<HashMap<String, String>>,
}

impl Cache {
    /// Loads everything that the store holds and starts to follow it until `cancel`.
    pub fn start(store: Store, rows: Arc<Rows>, keyring: Arc<Keyring>, cancel: CancellationToken) -> Result<Arc<Cache>, Error> {
        let cache = Arc::new(Cache { store, keyring, rows, ingested: watch::channel(0).0, damaged: RwLock::default() });
        let revision = cache.load()?;
        tokio::spawn(cache.clone().follow(revision, cancel));
        Ok(cache)
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
        let payload = self.keyring.open(key, value).map_err(|e| e.to_string())?;
        let indexed = index::index(&payload, &row.fields).map_err(|e| format!("value of {key}: {e}"))?;
        let (namespace, name) = row.split_key(key).ok_or_else(|| format!("{key} is no key of {}", row.prefix))?;
        Cached::new(&payload, revision, frame_type, namespace, name, indexed.labels.into(), indexed.fields.into())
            .map_err(|e| format!("value of {key}: {e}"))
    }

    /// Reads all objects at one revision and fills every cache with them.
    fn load(&self) -> Result<i64, Error> {
        let end = keys::prefix_end(keys::OBJECTS.as_bytes());
        let mut by_row: HashMap<String, BTreeMap<Arc<str>, Arc<Cached>>> = HashMap::new();
        let mut damaged = HashMap::new();
        let mut request = etcd::RangeRequest {
            key: Bytes::from_static(keys::OBJECTS.as_bytes()),
            range_end: end,
            limit: LOAD_PAGE,
            revision: self.store.revision(),
            ..Default::default()
        };
        let revision = request.revision;
        loop {
            if revision <= 0 {
                break;
            }
            let page = self.store.range(&request)?;
            let Some(last) = page.kvs.last() else { break };
            let mut next = last.key.to_vec();
            next.push(0);
            for kv in page.kvs {
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                let Some(row) = self.rows.by_key(&key) else { continue };
                match self.decode(&row, &key, kv.value, kv.mod_revision, EventType::Added) {
                    Ok(object) => {
                        by_row.entry(row.prefix.clone()).or_default().insert(key[row.prefix.len()..].into(), Arc::new(object));
                    }
                    Err(error) => {
                        tracing::error!(%error, "stored object is unreadable");
                        damaged.insert(key, error);
                    }
                }
            }
            if !page.more {
                break;
            }
            request.key = next.into();
        }
        for row in self.rows.all() {
            row.cache.reset(by_row.remove(&row.prefix).unwrap_or_default(), revision);
        }
        *self.damaged.write() = damaged;
        self.ingested.send_replace(revision);
        Ok(revision)
    }

    /// Follows the store from `revision` on.
    async fn follow(self: Arc<Self>, mut revision: i64, cancel: CancellationToken) {
        let prefix = Bytes::from_static(keys::OBJECTS.as_bytes());
        let end = keys::prefix_end(&prefix);
        loop {
            let ended = match self.store.watch(prefix.clone(), end.clone(), revision + 1) {
                Ok(mut stream) => loop {
                    let batch = tokio::select! {
                        () = cancel.cancelled() => return,
                        batch = stream.next() => batch,
                    };
                    match batch {
                        Ok(batch) => {
                            for transaction in batch.events.chunk_by(|a, b| revision_of(a) == revision_of(b)) {
                                self.ingest(transaction);
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
                Ok(at) => revision = at,
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
    fn ingest(&self, events: &[etcd::Event]) {
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
        let Some(revision) = events.first().map(revision_of) else { return };
        for (row, changes) in by_row.into_values() {
            row.cache.apply_all(revision, changes);
        }
    }

    /// The changes of one resource after `after`, from the store's history on.
    pub fn history(&self, row: &Row, after: i64) -> Result<History, WatchError> {
        let prefix = Bytes::copy_from_slice(row.prefix.as_bytes());
        let end = keys::prefix_end(&prefix);
        Ok(History { stream: self.store.watch(prefix, end, after + 1)? })
    }

    /// The change that an event is; none for a value that cannot be decoded. An event whose object before has been
    /// compacted cannot be judged (who saw the object?), so the way through history ends there.
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
            return Some(Change { revision: kv.mod_revision, event_type: EventType::Deleted, object: Arc::new(gone), previous });
        }
        let event_type = if previous.is_some() { EventType::Modified } else { EventType::Added };
        let object = Arc::new(decode(kv, event_type)?);
        Some(Change { revision: kv.mod_revision, event_type, object, previous })
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

fn revision_of(event: &etcd::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Whether a put made its key.
fn is_new(kv: &etcd::KeyValue) -> bool {
    kv.create_revision == kv.mod_revision
}
