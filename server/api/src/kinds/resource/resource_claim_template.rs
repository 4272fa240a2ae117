//! ResourceClaimTemplates.

use serde_json::Value;

use super::requests::device_requests;
use crate::default::{Lit::Obj, Set, fill};
use crate::resource::Kind;
use crate::validate::At;

/// Claims that are made for pods.
pub(crate) struct ResourceClaimTemplate;

impl Kind for ResourceClaimTemplate {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "requests and constraints"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "metadata", Obj), Set("spec", "spec", Obj), Set("spec.spec", "devices", Obj)]);
        device_requests(object, "spec.spec.devices");
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        object.at("spec").immutable(&old.at("spec"));
    }
}
