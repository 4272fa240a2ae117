//! Service addresses and node ports, allocated inside the Service's own transaction.
//!
//! An address or port is taken by a key of its own whose value names the Service; the condition that the key does not exist joins
//! the transaction that writes the Service. [`repair`] makes keys and Services agree again where an earlier release, or a
//! restored snapshot, left them apart.
//!
//! A node port number belongs to one Service, whatever the protocol (upstream's allocator knows no protocols); one Service may
//! use the number for several protocols. Dynamic allocation prefers the upper part of each range and leaves the lower one to
//! clients that choose a number themselves (KEP-3070, KEP-3668).
//!
//! Answers to upstream's `pkg/registry/core/service/storage/alloc.go`.

pub mod addresses;
pub mod ports;
pub mod ranges;
pub mod repair;

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use trireme_api::field::FieldErrors;
use trireme_api::gvk::GroupKind;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::Removed;
use crate::admission::effects::Effects;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::keys;
use crate::storage::lookup::StoreAccess;

pub use ranges::Ranges;

/// The plugin.
pub struct ServiceAllocation {
    ranges: Ranges,
    store: Arc<dyn StoreAccess>,
}

impl ServiceAllocation {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> ServiceAllocation {
        ServiceAllocation { ranges: environment.ranges.clone(), store: environment.store.clone() }
    }

    fn settle(&self, service: &mut Value, existing: Option<&Value>, effects: &mut Effects) -> FieldErrors {
        let taken = |key: &str| self.store.exists(key);
        let mut errors = FieldErrors::new();
        addresses::settle(&self.ranges, service, existing, &taken, &mut errors);
        ports::settle(&self.ranges, service, existing, &taken, &mut errors);
        if errors.is_empty() {
            let none = Value::Null;
            exchange(existing.unwrap_or(&none), service, effects);
        }
        errors
    }
}

impl Plugin for ServiceAllocation {
    fn name(&self) -> &'static str {
        "ServiceAllocation"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Allocate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is_on("", "services", "")
    }

    fn allocate(&self, request: &mut AdmissionRequest, effects: &mut Effects) -> Answer<()> {
        let existing = request.old_object.clone();
        let Some(service) = request.object_mut() else { return Ok(()) };
        let errors = self.settle(service, existing.as_deref(), effects);
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&GroupKind::new("", "Service"), meta::name(service), &errors).into())
    }

    fn release(&self, removed: Removed<'_>, service: &Value, effects: &mut Effects) {
        if removed.is("", "services") {
            held_keys(service).iter().for_each(|key| effects.delete(key));
        }
    }
}

/// Takes what `new` holds and `old` does not, and frees what only `old` holds.
fn exchange(old: &Value, new: &Value, effects: &mut Effects) {
    let owner = format!("{}/{}", meta::namespace(new), meta::name(new));
    let (before, after) = (held_keys(old), held_keys(new));
    let own_ports = ports::numbers(old);
    for key in after.iter().filter(|key| !before.contains(key)) {
        effects.require(key, 0);
        effects.put(key, owner.clone());
    }
    for number in ports::numbers(new).into_iter().filter(|number| !own_ports.contains(number)) {
        // The number is not allocated for another protocol either.
        for key in ports::keys(number).iter().filter(|key| !after.contains(key)) {
            effects.require(key, 0);
        }
    }
    for key in before.iter().filter(|key| !after.contains(key)) {
        effects.delete(key);
    }
}

/// The keys of everything that a Service holds.
fn held_keys(service: &Value) -> Vec<String> {
    let addresses = addresses::held(service).into_iter().map(|ip| keys::service_ip(IpAddr::V4(ip)));
    let ports = ports::held(service).into_iter().map(|(protocol, port)| keys::node_port(&protocol, port));
    addresses.chain(ports).collect()
}

fn service_type(service: &Value) -> &str {
    meta::str_at(service, &["spec", "type"])
}

#[cfg(test)]
mod tests;
