//! ResourceClaims.

use serde_json::{Value, json};

use super::requests::device_requests;
use crate::default::{Lit::Obj, Set, fill};
use crate::meta;
use crate::resource::{Cells, Column, Kind, carry_own_metadata};
use crate::time::Timestamp;
use crate::validate::At;

/// A request for devices.
pub(crate) struct ResourceClaim;

impl Kind for ResourceClaim {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_actor(&self) -> Option<&'static str> {
        Some("dynamic resource allocation")
    }

    fn missing_behaviour(&self) -> &'static str {
        "requests, constraints and allocation"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "devices", Obj), Set("", "status", Obj)]);
        device_requests(object, "spec.devices");
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry_own_metadata(object, old);
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        object.at("spec").immutable(&old.at("spec"));
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|State|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut states = Vec::new();
        if meta::deletion_timestamp(cells.object).is_some() {
            states.push("deleted");
        }
        if cells.at(&["status", "allocation"]).is_object() {
            states.push("allocated");
            if !cells.list(&["status", "reservedFor"]).is_empty() {
                states.push("reserved");
            }
        } else if states.is_empty() {
            states.push("pending");
        }
        vec![cells.name(), json!(states.join(",")), cells.age()]
    }
}
