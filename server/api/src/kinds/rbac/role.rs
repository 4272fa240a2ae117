//! Roles.

use serde_json::Value;

use super::rules;
use crate::default::{Lit::Null, Set, fill};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, NameRule};

/// Rules of access.
pub(crate) struct Role;

impl Kind for Role {
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
        fill(object, &[Set("", "rules", Null)]);
    }

    fn validate(&self, object: &At<'_>) {
        rules::role(object, true);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Created At:d")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), cells.created_at()]
    }
}
