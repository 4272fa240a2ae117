//! FlowSchemas.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::text::{NONE, condition};
use crate::resource::{Cells, Column, Kind, carry};
use crate::time::Timestamp;

/// Which requests have which priority.
pub(crate) struct FlowSchema;

impl Kind for FlowSchema {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "subjects and rules; the mandatory objects"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("spec", "matchingPrecedence", Z(1000))]);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry(object, old, "metadata");
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let dangling = condition(cells.object, "Dangling").and_then(|condition| condition["status"].as_str());
        vec![
            cells.name(),
            json!(cells.text(&["spec", "priorityLevelConfiguration", "name"])),
            json!(cells.int(&["spec", "matchingPrecedence"])),
            cells.text_or(&["spec", "distinguisherMethod", "type"], NONE),
            cells.age(),
            json!(dangling.unwrap_or("?")),
        ]
    }
}
