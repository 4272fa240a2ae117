//! ControllerRevisions.

use serde_json::{Value, json};

use crate::kinds::text::{NONE, plain};
use crate::meta;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// A stored state of a controller's object.
pub(crate) struct ControllerRevision;

impl Kind for ControllerRevision {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &At<'_>) {
        object.at("revision").non_negative();
        match object.at("data").value {
            Value::Object(_) => {}
            Value::Null => object.at("data").required("data is mandatory"),
            _ => object.at("data").required("data must be a valid JSON object"),
        }
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        object.at("revision").non_negative();
        object.at("data").immutable(&old.at("data"));
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Controller|Revision|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(revision(cells));
        row
    }
}

fn revision(cells: &Cells<'_>) -> Vec<Value> {
    let controller = meta::controller_of(cells.object).map_or_else(
        || NONE.to_owned(),
        |owner| {
            let version = owner["apiVersion"].as_str().unwrap_or_default();
            let group = version.split_once('/').map_or("", |(group, _)| group);
            let kind = plain(&owner["kind"]).to_lowercase();
            let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{kind}/{}", plain(&owner["name"]))
        },
    );
    vec![json!(controller), json!(cells.int(&["revision"])), cells.age()]
}
