//! Reading objects from inside the server: what authorizers, authenticators and admission plugins use.
//!
//! Reads come from the watch cache, cost no I/O, and may lag behind other servers by a moment. A decision that must be exact adds a
//! compare on [`LookedUp::mod_revision`] to the write.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::meta;
use trireme_proto::etcd;

use crate::admission::effects::Effects;
use crate::error::Answer;

/// A stored object as the cache knows it.
#[derive(Clone, Debug)]
pub struct LookedUp {
    /// The object, with its resourceVersion.
    pub object: Arc<Value>,
    /// The revision of its last change: what a compare on its key must name.
    pub mod_revision: i64,
}

/// Cheap reads of stored objects in their storage version. Empty `group` is the core group, empty `namespace` cluster scope.
pub trait ObjectReader: Send + Sync + 'static {
    /// One object.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<LookedUp>;
    /// All objects of a resource, or of one namespace of it.
    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<LookedUp>;
    /// The objects of a namespace that have this value at a dotted path of scalars. Cheap where the path is a field that
    /// selectors know.
    fn list_with(&self, group: &str, plural: &str, namespace: &str, path: &str, value: &str) -> Vec<LookedUp> {
        let keys: Vec<&str> = path.split('.').collect();
        let mut found = self.list(group, plural, Some(namespace));
        found.retain(|one| meta::str_at(&one.object, &keys) == value);
        found
    }
    /// Revision of the latest change to any object of the resource: lets a caller keep what it derived from a list.
    fn last_change(&self, group: &str, plural: &str) -> i64;
    /// Waits until everything acknowledged before the call is visible here (a ReadIndex). False when no quorum answered.
    fn refresh(&self) -> BoxFuture<'_, bool>;
}

/// What admission plugins need of the store besides reading objects.
pub trait StoreAccess: Send + Sync + 'static {
    /// The operation that writes another object in a mutation's transaction.
    fn put_operation(&self, group: &str, plural: &str, object: &Value) -> Answer<etcd::RequestOp>;
    /// Whether this server's store has the key. If that must hold at the moment of the write, add it to the write as a condition.
    fn exists(&self, key: &str) -> bool;
    /// One object from this server's store: it may be slightly newer than the cache's, and costs more to read.
    fn newest(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Answer<Option<LookedUp>>;
    /// Writes what cannot join a mutation's transaction in one of its own, before it. The revision, or `None` if a
    /// condition did not hold. The mutation may fail all the same: only what errs on the safe side may be written so.
    fn write_ahead(&self, effects: Effects) -> BoxFuture<'_, Answer<Option<i64>>>;
}
