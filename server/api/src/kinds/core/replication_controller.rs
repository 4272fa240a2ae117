//! ReplicationControllers.

use serde_json::{Value, json};

use super::pod;
use crate::default::{Lit::*, Set, each, fill, unset};
use crate::kinds::text::{containers, labels};
use crate::kinds::workload::{self, always_template, labels_from, template_labels};
use crate::resource::{Cells, Column, Dependents, Kind, SelectableField};
use crate::validate::At;

/// A number of pods like a template, in its first API.
pub(crate) struct ReplicationController;

impl Kind for ReplicationController {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        pod::MISSING
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("status", "replicas", I(0))]);
        pod::default::template(object, "spec.template");
        default(object);
    }

    fn validate(&self, object: &At<'_>) {
        replication_controller(object);
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        workload::status(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings::template(object, old, "spec.template")
    }

    fn dependents(&self) -> Dependents {
        Dependents::Orphan
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
        row.extend(containers(cells.list(&["spec", "template", "spec", "containers"])));
        row.push(json!(labels(cells.at(&["spec", "selector"]))));
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("status.replicas").or("0")]
    }
}

/// A ReplicationController takes selector and labels from its template.
fn default(object: &mut Value) {
    fill(object, &[Set("spec", "replicas", I(1))]);
    let labels = template_labels(object);
    let Some(labels) = labels else { return };
    each(object, "spec", &mut |spec| {
        if unset(spec, "selector") {
            spec.insert("selector".to_owned(), labels.clone());
        }
    });
    labels_from(object, labels);
}

fn replication_controller(object: &At<'_>) {
    let spec = object.at("spec");
    spec.at("minReadySeconds").non_negative();
    let selector = spec.at("selector");
    if selector.is_empty() {
        selector.required("");
    }
    spec.at("replicas").non_negative();
    if !spec.at("template").is_set() {
        spec.at("template").required("");
        return;
    }
    let labels = spec.at("template").at("metadata").at("labels");
    if selector.entries().any(|(key, value)| labels.at(key).value != value.value) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
    always_template(&spec, "ReplicationController");
}
