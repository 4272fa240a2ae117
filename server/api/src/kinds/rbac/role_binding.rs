//! RoleBindings.

use serde_json::Value;

use super::bindings;
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, NameRule};

/// Who has the rules of a role.
pub(crate) struct RoleBinding;

impl Kind for RoleBinding {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn default(&self, _version: &str, object: &mut Value) {
        bindings::default(object);
    }

    fn validate(&self, object: &At<'_>) {
        bindings::binding(object, true);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        bindings::binding(object, true);
        bindings::binding_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Role|Age|+Users|+Groups|+ServiceAccounts")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        bindings::cells(cells)
    }
}
