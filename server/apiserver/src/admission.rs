//! Admission: checks and completes an object before it is written, and adds conditions to its transaction.
//!
//! The [`Admission`] that the registry is given is a [`chain::Chain`] of [`plugin::Plugin`]s in upstream's order. A plugin never writes to
//! the store: what must be true at the moment of the write is a condition of the object's transaction, what must be written with
//! it an operation ([`effects::Effects`], D6).
//!
//! Owns the order and the built-in plugins. Must not do: defaulting and validation of the object's own fields (`trireme-api`), HTTP.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>.
//!
//! # Quota
//!
//! A create charges a quota by writing the quota's `status.used` in its own transaction. The condition on the quota is one per namespace, so
//! creates in a namespace with quotas come one after another: on one server they wait for one another ([`plugins::resource_quota`]), between
//! servers they conflict and run again. Namespaces without quotas pay nothing.

pub mod builtin;
pub mod cel;
pub mod chain;
pub mod configuration;
pub mod effects;
pub mod loopback;
pub mod match_conditions;
pub mod merged_tolerations;
pub mod metrics;
pub mod plugin;
pub mod plugins;
pub mod policies;
pub mod request;
pub mod review_request;
pub mod rules;
pub mod toleration_seconds;
pub mod webhooks;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::{meta, status::Status};

use crate::admission::effects::Effects;
use crate::admission::request::AdmissionRequest;
use crate::error::Answer;
use crate::storage::lookup::{LookedUp, ObjectReader};

/// The calls that the registry makes for every mutation, in this order.
pub trait Admission: Send + Sync + 'static {
    /// Changes the object before it has its final form.
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> BoxFuture<'a, Answer<Effects>>;

    /// Allocates addresses and ports for the object. The object has its name; it is not validated yet.
    fn allocate(&self, request: &mut AdmissionRequest, effects: &mut Effects) -> Answer<()>;

    /// Judges the object in the form in which it will be stored.
    fn validate<'a>(&'a self, request: &'a AdmissionRequest, effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>>;

    /// Releases the allocations of an object that the transaction removes.
    fn release(&self, removed: Removed<'_>, object: &Value, effects: &mut Effects);
}

/// The resource of an object that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed<'a> {
    /// Storage group, empty for core.
    pub group: &'a str,
    /// Plural name.
    pub plural: &'a str,
}

impl Removed<'_> {
    /// Whether it is this resource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

/// The 403 of a plugin, naming the object as well as it can be named.
fn forbid(request: &AdmissionRequest, message: &str) -> Box<Status> {
    Box::new(Status::forbidden(&request.resource.group_resource(), &shown_name(request), message))
}

fn shown_name(request: &AdmissionRequest) -> String {
    if !request.name.is_empty() {
        return request.name.clone();
    }
    let from = |read: fn(&Value) -> &str| request.object().map(read).filter(|name| !name.is_empty());
    from(meta::name).or_else(|| from(meta::generate_name)).unwrap_or("Unknown").to_owned()
}

/// One object; if it isn't visible here, looked for again after a ReadIndex: it may have been made through
/// another server a moment ago.
async fn find(reader: &dyn ObjectReader, group: &str, plural: &str, namespace: &str, name: &str) -> Option<LookedUp> {
    if let Some(found) = reader.get(group, plural, namespace, name) {
        return Some(found);
    }
    if reader.refresh().await { reader.get(group, plural, namespace, name) } else { None }
}

#[cfg(test)]
mod tests;
