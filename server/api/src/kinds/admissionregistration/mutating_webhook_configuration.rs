//! MutatingWebhookConfigurations.

use serde_json::Value;

use super::webhook::{self, WEBHOOK};
use crate::default::{Lit::S, Set, fill};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// Webhooks that change requests.
pub(crate) struct MutatingWebhookConfiguration;

impl Kind for MutatingWebhookConfiguration {
    fn has_status(&self) -> bool {
        false
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "CA bundles"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, WEBHOOK);
        fill(object, &[Set("webhooks[]", "reinvocationPolicy", S("Never"))]);
    }

    fn validate(&self, object: &At<'_>) {
        webhook::webhooks(object, true);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Webhooks:i|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        webhook::cells(cells)
    }
}
