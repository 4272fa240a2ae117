//! ReplicaSets.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::core::pod;
use crate::kinds::workload::{self, always_template, selector_matches, template_cells, template_matches};
use crate::resource::{Cells, Column, Kind, SelectableField};
use crate::validate::At;

/// A number of pods like a template.
pub(crate) struct ReplicaSet;

impl Kind for ReplicaSet {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        pod::MISSING
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(
            object,
            &[
                Set("", "spec", Obj),
                Set("spec", "selector", Null),
                Set("spec", "template", Obj),
                Set("", "status", Obj),
                Set("status", "replicas", I(0)),
            ],
        );
        pod::default::template(object, "spec.template");
        fill(object, &[Set("spec", "replicas", I(1))]);
    }

    fn validate(&self, object: &At<'_>) {
        replica_set(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        replica_set(object);
        object.at("spec").at("selector").immutable(&old.at("spec").at("selector"));
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        workload::status(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings::template(object, old, "spec.template")
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Desired:i|Current:i|Ready:i|Age|+Containers|+Images|+Selector")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![
            cells.name(),
            json!(cells.int(&["spec", "replicas"])),
            json!(cells.int(&["status", "replicas"])),
            json!(cells.int(&["status", "readyReplicas"])),
            cells.age(),
        ];
        template_cells(cells, &mut row);
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("status.replicas").or("0")]
    }
}

fn replica_set(object: &At<'_>) {
    let spec = object.at("spec");
    spec.at("replicas").non_negative();
    spec.at("minReadySeconds").non_negative();
    selector_matches(&spec, "deployment");
    template_matches(&spec);
    always_template(&spec, "ReplicaSet");
}
