//! Leases.

use serde_json::{Value, json};

use crate::default::{Lit::Obj, Set, fill};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// A claim that its holder renews.
pub(crate) struct Lease;

impl Kind for Lease {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj)]);
    }

    fn validate(&self, object: &At<'_>) {
        lease(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Holder|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(cells.text(&["spec", "holderIdentity"])), cells.age()]
    }
}

fn lease(object: &At<'_>) {
    let spec = object.at("spec");
    if spec.at("leaseDurationSeconds").int().is_some_and(|seconds| seconds <= 0) {
        spec.at("leaseDurationSeconds").invalid("must be greater than 0");
    }
    spec.at("leaseTransitions").non_negative();
    let strategy = spec.at("strategy");
    if strategy.is_full() && !strategy.text().contains('/') && strategy.text() != "OldestEmulationVersion" {
        strategy.named(strategy.path.child("strategy")).not_supported(&["OldestEmulationVersion"]);
    }
    if spec.at("preferredHolder").is_full() && !strategy.is_full() {
        spec.at("preferredHolder").forbidden("may only be specified if `strategy` is defined");
    }
}
