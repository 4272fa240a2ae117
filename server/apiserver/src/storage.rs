//! Objects in the store: read at any revision, written only under conditions.
//!
//! Every write is one transaction of compares and operations, so nothing is checked first and written later (D6). The store tries a
//! refusal before append again, and nothing else does; an unknown outcome is never tried again (D3). Answers to upstream's
//! `apiserver/pkg/registry/generic/registry` and `storage/etcd3`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use trireme_api::gvk::GroupResource;
use trireme_api::meta;
use trireme_api::status::Status;
use trireme_proto::etcd;
use trireme_raft::{Fence, Store, StoreError};

use crate::admission::effects::Effects;
use crate::catalog::rows::{Row, Rows};
use crate::error::{Answer, store_status};
use crate::storage::cache::{Cache, Cached};
use crate::storage::lookup::{LookedUp, ObjectReader, StoreAccess};
use crate::storage::parsed::Parsed;
use crate::storage::sealing::Keyring;

pub mod cache;
pub mod encode;
#[cfg(any(test, feature = "test-support"))]
pub mod fake_reader;
pub mod keys;
pub mod lookup;
mod parsed;
pub mod sealing;

/// How long a read waits for the watch cache.
const CACHE_PATIENCE: Duration = Duration::from_secs(3);
/// Event leases of one TTL are shared within this span.
const LEASE_BUCKET_SECS: i64 = 60;

/// The objects behind the API.
pub struct Storage {
    /// The replicated store.
    pub store: Store,
    /// What it holds, decoded.
    pub cache: Arc<Cache>,
    /// What is served.
    pub rows: Arc<Rows>,
    keyring: Arc<Keyring>,
    leases: Mutex<HashMap<i64, (i64, Instant)>>,
    parsed: Parsed,
}

/// An object as it was read from the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object in its storage version, or in the one it was written in where a webhook converts; with resourceVersion.
    pub object: Value,
    /// Revision of its last change.
    pub mod_revision: i64,
    /// Whether it is stored in another form than it would be written in now: then an update that changes nothing writes too.
    pub is_outdated: bool,
}

/// What became of a conditional write.
#[derive(Debug)]
pub enum Commit {
    /// Written at this revision.
    Done(i64),
    /// A condition did not hold; this is the object now.
    Stale(Option<Stored>),
}

/// What to do with a key once its conditions hold.
pub enum Put<'a> {
    /// Write this object under a lease (0: none).
    Object(&'a Value, i64),
    /// Remove it.
    Delete,
}

impl Storage {
    /// Over `store` and `cache`.
    pub fn new(store: Store, cache: Arc<Cache>, rows: Arc<Rows>, keyring: Arc<Keyring>) -> Storage {
        Storage { store, cache, rows, keyring, leases: Mutex::default(), parsed: Parsed::default() }
    }

    /// Waits until store and cache have everything that was acknowledged before the call (D3). Returns that revision.
    pub async fn refresh(&self, row: &Row) -> Answer<i64> {
        let revision = self.barrier(row).await?;
        if !self.cache.wait_for(revision, CACHE_PATIENCE).await {
            return Err(too_large(revision, self.cache.ingested()));
        }
        // A row that was removed or replaced meanwhile no longer follows the store.
        if row.retired.is_cancelled() {
            Err(Status::server_timeout(&row.group_resource(), "get", 1))?;
        }
        Ok(revision)
    }

    /// Whether the cache of a row has passed a revision that the store still has.
    pub fn holds(&self, row: &Row, revision: i64) -> bool {
        !row.retired.is_cancelled() && revision >= self.store.compact_revision() && revision <= self.cache.ingested()
    }

    /// Waits until the local store has everything that was acknowledged before the call. The store waits for a leader; nothing is
    /// tried again here.
    pub async fn barrier(&self, row: &Row) -> Answer<i64> {
        self.store.barrier().await.map_err(|error| store_status(&error, &row.group_resource(), "get").into())
    }

    /// Waits until the cache is at least at `revision`, or answers 504.
    pub async fn wait_for(&self, revision: i64) -> Answer<()> {
        if self.cache.wait_for(revision, CACHE_PATIENCE).await { Ok(()) } else { Err(too_large(revision, self.cache.ingested())) }
    }

    /// Reads one object from the local store.
    pub fn read(&self, row: &Row, key: &str) -> Answer<Option<Stored>> {
        let mut response = self.store.range(&keys::get(key)).map_err(|e| store_status(&e, &row.group_resource(), "get"))?;
        match response.kvs.pop() {
            Some(kv) => Ok(Some(self.open(row, key, kv)?)),
            None => Ok(None),
        }
    }

    fn open(&self, row: &Row, key: &str, kv: etcd::KeyValue) -> Answer<Stored> {
        let payload = self.keyring.open(key, kv.value).map_err(Status::internal)?;
        let unreadable = |error: String| Status::internal(format!("value of {key}: {error}"));
        let mut object: Value = serde_json::from_slice(&payload).map_err(|e| unreadable(e.to_string()))?;
        let kind = &row.definition.kind;
        let mut is_outdated = false;
        if kind.restores() {
            let stored = object.clone();
            kind.restore(&mut object).map_err(unreadable)?;
            let gvk = row.restored_gvk(&object);
            meta::set_gvk(&mut object, &gvk);
            is_outdated = object != stored || gvk != row.storage_gvk();
        }
        meta::set_resource_version(&mut object, &kv.mod_revision.to_string());
        Ok(Stored { object, mod_revision: kv.mod_revision, is_outdated })
    }

    /// Decodes a value that was read from history.
    pub fn decode(&self, row: &Row, kv: etcd::KeyValue) -> Answer<Cached> {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        self.cache
            .decode(row, &key, kv.value, kv.mod_revision, crate::storage::cache::EventType::Added)
            .map_err(|e| Box::new(Status::internal(e)))
    }

    /// Writes or removes `key` if its last change is still `expected` (0: it does not exist) and all of `effects` hold.
    pub async fn commit(
        &self,
        row: &Row,
        key: &str,
        expected: i64,
        put: Put<'_>,
        effects: &Effects,
        fence: Option<Fence>,
        operation: &str,
    ) -> Answer<Commit> {
        let gr = row.group_resource();
        let own = match put {
            Put::Object(object, lease) => self.put_operation(row, key, object, lease)?,
            Put::Delete => keys::delete(key),
        };
        let txn = etcd::TxnRequest {
            compare: std::iter::once(keys::unchanged(key, expected)).chain(effects.compares().iter().cloned()).collect(),
            success: std::iter::once(own).chain(effects.operations().iter().cloned()).collect(),
            failure: vec![keys::read(key)],
        };
        let response = self.store.txn(txn, fence).await.map_err(|e| store_status(&e, &gr, operation))?;
        let revision = response.header.as_ref().map_or(0, |h| h.revision);
        if response.succeeded {
            return Ok(Commit::Done(revision));
        }
        let found = response.responses.into_iter().next().and_then(|r| match r.response {
            Some(etcd::response_op::Response::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        });
        match found {
            Some(kv) => Ok(Commit::Stale(Some(self.open(row, key, kv)?))),
            None => Ok(Commit::Stale(None)),
        }
    }

    /// The operation that writes an object under a lease (0: none).
    pub fn put_operation(&self, row: &Row, key: &str, object: &Value, lease: i64) -> Answer<etcd::RequestOp> {
        let gvk = row.storage_gvk();
        let api_version = gvk.api_version();
        let payload = encode::payload(object, &api_version, &gvk.kind);
        let value = self
            .keyring
            .seal(key, &format!("{api_version}/{}", gvk.kind), payload, row.definition.kind.is_sealed())
            .map_err(Status::internal)?;
        Ok(keys::put(key, value, lease))
    }

    /// All keys that begin with `prefix`, from the local store.
    pub fn range(&self, prefix: &str) -> Result<Vec<etcd::KeyValue>, StoreError> {
        let request = etcd::RangeRequest { range_end: keys::prefix_end(prefix.as_bytes()), ..keys::get(prefix) };
        Ok(self.store.range(&request)?.kvs)
    }

    /// Waits until the cache has everything that was acknowledged before the call. False when no quorum answered in time.
    pub async fn refresh_all(&self) -> bool {
        match self.store.barrier().await {
            Ok(revision) => self.cache.wait_for(revision, CACHE_PATIENCE).await,
            Err(_) => false,
        }
    }

    /// A lease for objects that live `ttl_secs`. Leases are shared by all objects written within a minute, so that ten
    /// thousand Events do not need ten thousand leases.
    pub async fn lease(&self, row: &Row, ttl_secs: i64) -> Answer<i64> {
        if let Some((id, made)) = self.leases.lock().get(&ttl_secs).copied()
            && made.elapsed() < Duration::from_secs(LEASE_BUCKET_SECS.unsigned_abs())
        {
            return Ok(id);
        }
        let grant =
            self.store.lease_grant(ttl_secs + LEASE_BUCKET_SECS, 0).await.map_err(|e| store_status(&e, &row.group_resource(), "create"))?;
        self.leases.lock().insert(ttl_secs, (grant.id, Instant::now()));
        Ok(grant.id)
    }

    /// Drops remembered leases: the store no longer knows one of them.
    pub fn forget_leases(&self) {
        self.leases.lock().clear();
    }

    /// Reads a part of a row at an exact revision: keys from `from` to the end of `prefix` (both relative to the row).
    pub fn range_at(&self, row: &Row, prefix: &str, from: &str, limit: usize, revision: i64) -> Result<etcd::RangeResponse, StoreError> {
        let whole = format!("{}{prefix}", row.prefix);
        let start = if from > prefix { format!("{}{from}", row.prefix) } else { whole.clone() };
        self.store.range(&etcd::RangeRequest {
            key: Bytes::from(start),
            range_end: keys::prefix_end(whole.as_bytes()),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            revision,
            ..Default::default()
        })
    }
}

fn too_large(requested: i64, current: i64) -> Box<Status> {
    Box::new(Status::resource_version_too_large(u64::try_from(requested).unwrap_or(0), u64::try_from(current).unwrap_or(0)))
}

// === impl ObjectReader for Storage ===

impl ObjectReader for Storage {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<LookedUp> {
        let row = self.rows.row(group, plural)?;
        let key = if row.resource.namespaced { format!("{namespace}/{name}") } else { name.to_owned() };
        let object = row.cache.get(&key)?;
        let value = self.parsed.value(&object).inspect_err(|error| not_json(&object, error)).ok()?;
        Some(LookedUp { object: value, mod_revision: object.revision })
    }

    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<LookedUp> {
        let Some(row) = self.rows.row(group, plural) else { return Vec::new() };
        let prefix = row.scope_prefix(namespace.unwrap_or_default());
        row.cache.list(&prefix, 0, |_| true).0.iter().filter_map(|o| looked_up(o)).collect()
    }

    fn list_with(&self, group: &str, plural: &str, namespace: &str, path: &str, value: &str) -> Vec<LookedUp> {
        let Some(row) = self.rows.row(group, plural) else { return Vec::new() };
        let indexed = row.fields.iter().position(|known| known == path);
        let has_value = |object: &Cached| match indexed {
            Some(at) => object.fields.get(at).is_some_and(|found| **found == *value),
            None => true,
        };
        let candidates = row.cache.list(&row.scope_prefix(namespace), 0, has_value).0;
        let keys: Vec<&str> = path.split('.').collect();
        candidates.iter().filter_map(|o| looked_up(o)).filter(|one| meta::str_at(&one.object, &keys) == value).collect()
    }

    fn last_change(&self, group: &str, plural: &str) -> i64 {
        self.rows.row(group, plural).map_or(0, |row| row.cache.last_change())
    }

    fn refresh(&self) -> BoxFuture<'_, bool> {
        self.refresh_all().boxed()
    }
}

impl StoreAccess for Storage {
    fn put_operation(&self, group: &str, plural: &str, object: &Value) -> Answer<etcd::RequestOp> {
        let row = self.rows.row(group, plural).ok_or_else(|| Box::new(Status::resource_not_found()))?;
        let key = row.key(meta::namespace(object), meta::name(object));
        Storage::put_operation(self, &row, &key, object, 0)
    }

    fn exists(&self, key: &str) -> bool {
        self.store.range(&keys::get(key)).is_ok_and(|response| !response.kvs.is_empty())
    }

    fn newest(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Answer<Option<LookedUp>> {
        let Some(row) = self.rows.row(group, plural) else { return Ok(None) };
        let stored = self.read(&row, &row.key(namespace, name))?;
        Ok(stored.map(|stored| LookedUp { object: Arc::new(stored.object), mod_revision: stored.mod_revision }))
    }

    fn write_ahead(&self, effects: Effects) -> BoxFuture<'_, Answer<Option<i64>>> {
        let txn = etcd::TxnRequest { compare: effects.compares().to_vec(), success: effects.operations().to_vec(), failure: Vec::new() };
        async move {
            let response = self.store.txn(txn, None).await.map_err(|error| store_status(&error, &GroupResource::new("", ""), "update"))?;
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            Ok(response.succeeded.then_some(revision))
        }
        .boxed()
    }
}

fn looked_up(object: &Cached) -> Option<LookedUp> {
    let value = serde_json::from_slice(&object.json()).inspect_err(|error| not_json(object, error)).ok()?;
    Some(LookedUp { object: Arc::new(value), mod_revision: object.revision })
}

fn not_json(object: &Cached, error: &serde_json::Error) {
    tracing::error!(%error, name = %object.name, "cached object is no JSON");
}
