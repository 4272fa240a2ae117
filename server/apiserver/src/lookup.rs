//! Reading objects from inside the server: what authorizers, authenticators and admission plugins use.
//!
//! Reads come from the watch cache, cost no I/O, and may lag behind other servers by a moment. What must be exact joins
//! the write as a compare on [`LookedUp::mod_revision`].

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

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
    /// Revision of the latest change to any object of the resource: lets a caller keep what it derived from a list.
    fn last_change(&self, group: &str, plural: &str) -> i64;
    /// Waits until everything acknowledged before the call is visible here (a ReadIndex). False when no quorum answered.
    fn refresh(&self) -> BoxFuture<'_, bool>;
}
