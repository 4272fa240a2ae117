//! PersistentVolumeClaims.

pub(crate) mod claim;

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::text::{UNSET, access_modes, phase, size, storage_class};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// A request for storage.
pub(crate) struct PersistentVolumeClaim;

impl Kind for PersistentVolumeClaim {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "conditions and allocated resources in the status"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(
            object,
            &[
                Set("", "spec", Obj),
                Set("spec", "resources", Obj),
                Set("", "status", Obj),
                Set("spec", "volumeMode", S("Filesystem")),
                Set("status", "phase", S("Pending")),
            ],
        );
    }

    fn validate(&self, object: &At<'_>) {
        claim::spec(&object.at("spec"));
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        claim::update(object, old);
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age|+VolumeMode")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table_cells(cells));
        row
    }
}

fn table_cells(cells: &Cells<'_>) -> Vec<Value> {
    let bound = !cells.text(&["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        (size(cells.at(&["status", "capacity", "storage"])), access_modes(cells.at(&["status", "accessModes"])))
    } else {
        (String::new(), String::new())
    };
    vec![
        phase(cells),
        json!(cells.text(&["spec", "volumeName"])),
        json!(capacity),
        json!(modes),
        storage_class(cells),
        cells.text_or(&["spec", "volumeAttributesClassName"], UNSET),
        cells.age(),
        cells.text_or(&["spec", "volumeMode"], UNSET),
    ]
}
