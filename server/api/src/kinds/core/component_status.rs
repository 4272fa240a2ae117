//! ComponentStatuses: health of the control plane, deprecated.

use serde_json::{Value, json};

use crate::resource::{Cells, Column, Kind};

/// Health of one component.
pub(crate) struct ComponentStatus;

impl Kind for ComponentStatus {
    fn deprecation(&self, _version: &str) -> Option<crate::gvk::Name> {
        Some("v1 ComponentStatus is deprecated in v1.19+".into())
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Status|Message|Error")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(component_status(cells));
        row
    }
}

fn component_status(cells: &Cells<'_>) -> Vec<Value> {
    let healthy = cells.list(&["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
    let status = match healthy {
        Some(condition) if condition["status"] == "True" => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let text = |key: &str| json!(healthy.and_then(|condition| condition[key].as_str()).unwrap_or_default());
    vec![json!(status), text("message"), text("error")]
}
