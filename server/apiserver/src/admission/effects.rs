//! The conditions and operations that plugins add to the transaction of an admitted write.
//!
//! A plugin never writes to the store and never relies on what it read: what must be true at the moment of the write is a
//! condition, what must be written with it an operation. If a condition fails, the whole mutation runs again (D6).

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use trireme_proto::etcd;

use crate::storage::keys;

/// Conditions, operations, warnings and facts for audit events, collected over all plugins of a mutation.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    compares: Vec<etcd::Compare>,
    operations: Vec<etcd::RequestOp>,
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
    reinvoke: bool,
    held: Vec<Arc<dyn Any + Send + Sync>>,
}

// === impl Effects ===

impl Effects {
    /// The last change of `key` must still be `mod_revision` (0: the key must not exist).
    pub fn require(&mut self, key: &str, mod_revision: i64) {
        self.compares.push(keys::unchanged(key, mod_revision));
    }

    /// Writes `key` together with the object.
    pub fn put(&mut self, key: &str, value: impl Into<Bytes>) {
        self.operations.push(keys::put(key, value, 0));
    }

    /// Writes another object together with this one. An operation of [`crate::storage::lookup::StoreAccess::put_operation`].
    pub fn operation(&mut self, operation: etcd::RequestOp) {
        self.operations.push(operation);
    }

    /// Deletes `key` together with the write.
    pub fn delete(&mut self, key: &str) {
        self.operations.push(keys::delete(key));
    }

    /// Keeps `guard` until the write has happened or failed.
    pub fn hold(&mut self, guard: impl Any + Send + Sync) {
        self.held.push(Arc::new(guard));
    }

    /// Adds a text for a `Warning` header.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Adds a fact to the audit events of the request.
    pub fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.push((key.into(), value.into()));
    }

    /// Runs the mutating plugins once more: this one has changed what earlier ones may have an opinion about.
    pub fn reinvoke(&mut self) {
        self.reinvoke = true;
    }

    /// Whether a plugin asked for another round.
    pub fn wants_reinvocation(&self) -> bool {
        self.reinvoke
    }

    /// The conditions.
    pub fn compares(&self) -> &[etcd::Compare] {
        &self.compares
    }

    /// The operations.
    pub fn operations(&self) -> &[etcd::RequestOp] {
        &self.operations
    }

    /// Takes the warnings out.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes the facts for audit events out.
    pub fn take_annotations(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.annotations)
    }
}
