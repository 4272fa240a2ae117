//! CSIStorageCapacities.

use serde_json::Value;

use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// How much storage a driver has left.
pub(crate) struct CsiStorageCapacity;

impl Kind for CsiStorageCapacity {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        for field in ["nodeTopology", "storageClassName"] {
            object.at(field).immutable(&old.at(field));
        }
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Created At:d")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), cells.created_at()]
    }
}
