//! PodTemplates.

use serde_json::{Value, json};

use super::pod;
use crate::default::{Lit::Obj, Set, fill};
use crate::kinds::text::{containers, labels};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// A pod template by itself.
pub(crate) struct PodTemplate;

impl Kind for PodTemplate {
    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        pod::MISSING
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "template", Obj)]);
        pod::default::template(object, "template");
    }

    fn validate(&self, object: &At<'_>) {
        pod::spec::template(&object.at("template"));
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings::template(object, old, "template")
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Containers|Images|Pod Labels")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(containers(cells.list(&["template", "spec", "containers"])));
        row.push(json!(labels(cells.at(&["template", "metadata", "labels"]))));
        row
    }
}
