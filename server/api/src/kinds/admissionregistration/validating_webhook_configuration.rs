//! ValidatingWebhookConfigurations.

use serde_json::Value;

use super::webhook::{self, WEBHOOK};
use crate::default::fill;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// Webhooks that judge requests.
pub(crate) struct ValidatingWebhookConfiguration;

impl Kind for ValidatingWebhookConfiguration {
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
    }

    fn validate(&self, object: &At<'_>) {
        webhook::webhooks(object, false);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Webhooks:i|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        webhook::cells(cells)
    }
}
