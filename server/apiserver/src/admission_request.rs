//! What admission plugins see and what they may add to a write.
//!
//! Answers to upstream's `admission.Attributes`. A plugin never writes to the store itself: what must hold together with
//! the object (quota, namespace state) comes back as compares and operations that join the object's own transaction.

use std::sync::Arc;

use serde_json::Value;
use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};
use trireme_proto::etcd;

use crate::user::UserInfo;

/// The kind of change that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or a create on a subresource (binding, eviction, token).
    Create,
    /// A changed object (update or patch).
    Update,
    /// A deletion.
    Delete,
    /// A connection (exec, attach, port-forward, proxy).
    Connect,
}

impl Operation {
    /// The name that upstream uses in messages and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One mutation on its way through the admission chain.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// What kind of change.
    pub operation: Operation,
    /// Kind of `object` (for a subresource: the subresource's kind, for example `policy/v1 Eviction`).
    pub kind: GroupVersionKind,
    /// The resource that was addressed.
    pub resource: GroupVersionResource,
    /// The subresource that was addressed, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name; may be empty on create with `generateName`.
    pub name: String,
    /// Who asks.
    pub user: UserInfo,
    /// The new object, absent on delete. Mutating plugins change it in place.
    pub object: Option<Value>,
    /// The stored object, present on update and delete.
    pub old_object: Option<Arc<Value>>,
    /// The CreateOptions, UpdateOptions, PatchOptions or DeleteOptions of the request.
    pub options: Value,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

/// What plugins add to the write that they admitted.
#[derive(Clone, Debug, Default)]
pub struct AdmissionEffects {
    /// Conditions that join the object's transaction; if one fails the whole mutation runs again.
    pub compares: Vec<etcd::Compare>,
    /// Operations that join the object's transaction.
    pub ops: Vec<etcd::RequestOp>,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

impl AdmissionEffects {
    /// Takes over everything of `other`.
    pub fn merge(&mut self, other: AdmissionEffects) {
        self.compares.extend(other.compares);
        self.ops.extend(other.ops);
        self.warnings.extend(other.warnings);
    }
}
