//! ResourceSlices.

use serde_json::{Value, json};

use crate::resource::{Cells, Column, Kind, SelectableField};
use crate::validate::At;

/// Devices of a node.
pub(crate) struct ResourceSlice;

impl Kind for ResourceSlice {
    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "times of device taints; devices, counters and attributes"
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        let (spec, before) = (object.at("spec"), old.at("spec"));
        spec.at("pool").at("name").immutable(&before.at("pool").at("name"));
        for field in ["driver", "nodeName"] {
            spec.at(field).immutable(&before.at(field));
        }
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Node|Driver|Pool|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![
            cells.name(),
            json!(cells.text(&["spec", "nodeName"])),
            json!(cells.text(&["spec", "driver"])),
            json!(cells.text(&["spec", "pool", "name"])),
            cells.age(),
        ]
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("spec.nodeName"), SelectableField::new("spec.driver")]
    }
}
