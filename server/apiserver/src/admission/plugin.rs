//! The trait of admission plugins. Adding one: a file in `plugins/`, and an entry in `builtin.rs`.
//!
//! Answers to upstream's `admission.Interface`, `MutationInterface` and `ValidationInterface`.

use std::future::ready;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

use super::configuration::Configuration;
use super::effects::Effects;
use super::loopback::Loopback;
use super::request::AdmissionRequest;
use crate::admission::Removed;
use crate::authz::Authorizer;
use crate::catalog::rows::Rows;
use crate::egress::Egress;
use crate::error::Answer;
use crate::storage::lookup::{ObjectReader, StoreAccess};

/// What a plugin is made from.
#[derive(Clone)]
pub struct Environment {
    /// Stored objects, from the watch cache.
    pub reader: Arc<dyn ObjectReader>,
    /// Allocation keys, and operations that write other objects in the same transaction.
    pub store: Arc<dyn StoreAccess>,
    /// Decides what else the user may do.
    pub authorizer: Authorizer,
    /// The way to webhooks.
    pub egress: Arc<dyn Egress>,
    /// Service addresses and node ports.
    pub ranges: super::plugins::service_allocation::ranges::Ranges,
    /// The `tolerationSeconds` for pods without a toleration of nodes that are not ready or unreachable.
    pub tolerations: super::toleration_seconds::TolerationSeconds,
    /// The resources that are served.
    pub rows: Arc<Rows>,
    /// The sections of the configuration file.
    pub configuration: Arc<Configuration>,
    /// The way to this server itself, once it serves.
    pub loopback: Loopback,
}

/// A phase of admission that a plugin takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Changes the object. Runs before the object has its final form; may run more than once.
    Admit,
    /// Allocates addresses and ports for the object. The object has its name; it is not validated yet.
    Allocate,
    /// Judges the object in the form in which it will be stored.
    Validate,
}

impl Phase {
    /// As upstream's metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Admit => "admit",
            Phase::Allocate => "allocate",
            Phase::Validate => "validate",
        }
    }
}

/// One admission plugin. It has no state of its own that a write depends on: see [`Effects`].
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name of it.
    fn name(&self) -> &'static str;

    /// The phases in which it is called.
    fn phases(&self) -> &'static [Phase];

    /// Whether it has to do with the request's operation, resource and subresource.
    fn handles(&self, request: &AdmissionRequest) -> bool;

    /// Whether it does something outside the store that cannot be undone; a dry run is then refused.
    fn has_side_effects(&self) -> bool {
        false
    }

    /// Changes the object.
    fn admit<'a>(&'a self, _request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(ready(Ok(())))
    }

    /// Allocates what the object needs, and frees what a change no longer needs.
    fn allocate(&self, _request: &mut AdmissionRequest, _effects: &mut Effects) -> Answer<()> {
        Ok(())
    }

    /// Judges the object.
    fn validate<'a>(&'a self, _request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(ready(Ok(())))
    }

    /// Frees what `object` holds: its removal is part of this transaction.
    fn release(&self, _removed: Removed<'_>, _object: &Value, _effects: &mut Effects) {}
}
