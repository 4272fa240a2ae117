//! Objects in the store: read at any revision, written only under conditions.
//!
//! Every write is one transaction of compares and operations, so nothing is checked first and written later (D6). A refusal
//! before append is tried again here; an unknown outcome never is (D3). Answers to upstream's
//! `apiserver/pkg/registry/generic/registry` and `storage/etcd3`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use trireme_api::meta;
use trireme_api::status::Status;
use trireme_proto::etcd;
use trireme_raft::{Fence, Store, StoreError};

use crate::admission_request::AdmissionEffects;
use crate::cache::{Cache, Cached};
use crate::error::{Answer, store_status};
use crate::lookup::{LookedUp, ObjectReader};
use crate::rows::{Row, Rows};
use crate::sealing::Keyring;
use crate::{encode, keys};

pub mod create;
pub mod delete;
pub mod deletion;
pub mod identity;
pub mod pipeline;
pub mod update;

/// How long a write is tried again while no leader is known.
const LEADER_PATIENCE: Duration = Duration::from_secs(8);
/// How long a read waits for the watch cache.
const CACHE_PATIENCE: Duration = Duration::from_secs(3);
/// Event leases of one TTL are shared within this span.
const LEASE_BUCKET_SECS: i64 = 60;

/// The objects behind the API.
pub struct Registry {
    /// The replicated store.
    pub store: Store,
    /// What it holds, decoded.
    pub cache: Arc<Cache>,
    /// What is served.
    pub rows: Arc<Rows>,
    keyring: Arc<Keyring>,
    leases: Mutex<HashMap<i64, (i64, Instant)>>,
}

/// An object as it was read from the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object in its storage version, with resourceVersion.
    pub object: Value,
    /// Revision of its last change.
    pub mod_revision: i64,
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

impl Registry {
    /// A registry over `store` and `cache`.
    pub fn new(store: Store, cache: Arc<Cache>, rows: Arc<Rows>, keyring: Arc<Keyring>) -> Registry {
        Registry { store, cache, rows, keyring, leases: Mutex::default() }
    }

    /// Waits until store and cache have everything that was acknowledged before the call (D3). Returns that revision.
    pub async fn refresh(&self, row: &Row) -> Answer<i64> {
        let revision = self.barrier(row).await?;
        if self.cache.wait_for(revision, CACHE_PATIENCE).await { Ok(revision) } else { Err(too_large(revision, self.cache.ingested())) }
    }

    /// Waits until the local store has everything that was acknowledged before the call.
    pub async fn barrier(&self, row: &Row) -> Answer<i64> {
        let started = Instant::now();
        loop {
            match self.store.barrier().await {
                Ok(revision) => return Ok(revision),
                Err(error) if error.is_retryable() && started.elapsed() < LEADER_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(store_status(&error, &row.group_resource(), "get").into()),
            }
        }
    }

    /// Waits until the cache is at least at `revision`, or answers 504.
    pub async fn wait_for(&self, revision: i64) -> Answer<()> {
        if self.cache.wait_for(revision, CACHE_PATIENCE).await { Ok(()) } else { Err(too_large(revision, self.cache.ingested())) }
    }

    /// Reads one object from the local store.
    pub fn read(&self, row: &Row, key: &str) -> Answer<Option<Stored>> {
        let mut response = self.store.range(&keys::get(key)).map_err(|e| store_status(&e, &row.group_resource(), "get"))?;
        match response.kvs.pop() {
            Some(kv) => Ok(Some(self.open(key, kv)?)),
            None => Ok(None),
        }
    }

    fn open(&self, key: &str, kv: etcd::KeyValue) -> Answer<Stored> {
        let payload = self.keyring.open(key, kv.value).map_err(Status::internal)?;
        let mut object: Value = serde_json::from_slice(&payload).map_err(|e| Status::internal(format!("value of {key}: {e}")))?;
        meta::set_resource_version(&mut object, &kv.mod_revision.to_string());
        Ok(Stored { object, mod_revision: kv.mod_revision })
    }

    /// Decodes a value that was read from history.
    pub fn decode(&self, row: &Row, kv: etcd::KeyValue) -> Answer<Cached> {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        self.cache.decode(row, &key, kv.value, kv.mod_revision, crate::cache::EventType::Added).map_err(|e| Box::new(Status::internal(e)))
    }

    /// Writes or removes `key` if its last change is still `expected` (0: it does not exist) and all of `effects` hold.
    pub async fn commit(
        &self,
        row: &Row,
        key: &str,
        expected: i64,
        put: Put<'_>,
        effects: &AdmissionEffects,
        fence: Option<Fence>,
        operation: &str,
    ) -> Answer<Commit> {
        let gr = row.group_resource();
        let own = match put {
            Put::Object(object, lease) => self.put_operation(row, key, object, lease)?,
            Put::Delete => keys::delete(key),
        };
        let txn = etcd::TxnRequest {
            compare: std::iter::once(keys::unchanged(key, expected)).chain(effects.compares.iter().cloned()).collect(),
            success: std::iter::once(own).chain(effects.ops.iter().cloned()).collect(),
            failure: vec![keys::read(key)],
        };
        let response = self.propose(txn, fence).await.map_err(|e| store_status(&e, &gr, operation))?;
        let revision = response.header.as_ref().map_or(0, |h| h.revision);
        if response.succeeded {
            return Ok(Commit::Done(revision));
        }
        let found = response.responses.into_iter().next().and_then(|r| match r.response {
            Some(etcd::response_op::Response::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        });
        match found {
            Some(kv) => Ok(Commit::Stale(Some(self.open(key, kv)?))),
            None => Ok(Commit::Stale(None)),
        }
    }

    /// The operation that writes an object under a lease (0: none).
    pub fn put_operation(&self, row: &Row, key: &str, object: &Value, lease: i64) -> Answer<etcd::RequestOp> {
        let gvk = row.storage_gvk();
        let api_version = gvk.api_version();
        let payload = encode::payload(object, &api_version, &gvk.kind);
        let value = self.keyring.seal(key, &format!("{api_version}/{}", gvk.kind), payload, row.secret).map_err(Status::internal)?;
        Ok(keys::put(key, value, lease))
    }

    /// Proposes, and again while nobody leads: such a refusal comes before append, so nothing can happen twice.
    pub async fn propose(&self, txn: etcd::TxnRequest, fence: Option<Fence>) -> Result<etcd::TxnResponse, StoreError> {
        let started = Instant::now();
        let mut wait = Duration::from_millis(20);
        loop {
            match self.store.txn(txn.clone(), fence).await {
                Err(error) if error.is_retryable() && started.elapsed() < LEADER_PATIENCE => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_millis(320));
                }
                outcome => return outcome,
            }
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

// === impl ObjectReader for Registry ===

impl ObjectReader for Registry {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<LookedUp> {
        let row = self.rows.row(group, plural)?;
        let key = if row.resource.namespaced { format!("{namespace}/{name}") } else { name.to_owned() };
        row.cache.get(&key).and_then(|o| looked_up(&o))
    }

    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<LookedUp> {
        let Some(row) = self.rows.row(group, plural) else { return Vec::new() };
        let prefix = row.scope_prefix(namespace.unwrap_or_default());
        row.cache.list(&prefix, 0, |_| true).0.iter().filter_map(|o| looked_up(o)).collect()
    }

    fn last_change(&self, group: &str, plural: &str) -> i64 {
        self.rows.row(group, plural).map_or(0, |row| row.cache.last_change())
    }

    fn refresh(&self) -> BoxFuture<'_, bool> {
        async {
            match self.store.barrier().await {
                Ok(revision) => self.cache.wait_for(revision, CACHE_PATIENCE).await,
                Err(_) => false,
            }
        }
        .boxed()
    }
}

fn looked_up(object: &Cached) -> Option<LookedUp> {
    let value = serde_json::from_slice(&object.json())
        .inspect_err(|error| tracing::error!(%error, name = %object.name, "cached object is no JSON"))
        .ok()?;
    Some(LookedUp { object: Arc::new(value), mod_revision: object.revision })
}
