//! Deployments.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::core::pod;
use crate::kinds::workload::{
    self, always_template, amount, at_most_all, int_or_percent, rolling_update, selector_matches, template_cells, template_matches,
};
use crate::resource::{Cells, Column, Kind, carry_metadata};
use crate::time::Timestamp;
use crate::validate::At;

const DEPLOYMENT: &[Set] = &[
    Set("spec", "replicas", I(1)),
    Set("spec.strategy", "type", S("RollingUpdate")),
    Set("spec", "revisionHistoryLimit", I(10)),
    Set("spec", "progressDeadlineSeconds", I(600)),
];

/// Replicas of a pod that are replaced step by step.
pub(crate) struct Deployment;

impl Kind for Deployment {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        pod::MISSING
    }

    fn generation_metadata(&self) -> &'static [&'static str] {
        &["annotations"]
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(
            object,
            &[
                Set("", "spec", Obj),
                Set("spec", "selector", Null),
                Set("spec", "template", Obj),
                Set("spec", "strategy", Obj),
                Set("", "status", Obj),
            ],
        );
        pod::default::template(object, "spec.template");
        fill(object, DEPLOYMENT);
        rolling_update(object, "spec.strategy", &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))]);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry_metadata(object, old, "labels");
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["spec", "metadata.labels"]
    }

    fn validate(&self, object: &At<'_>) {
        deployment(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        deployment(object);
        object.at("spec").at("selector").immutable(&old.at("spec").at("selector"));
    }

    fn validate_status(&self, object: &At<'_>, old: &At<'_>) {
        workload::status(object);
        workload::collisions(object, old);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings::template(object, old, "spec.template")
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Ready|Up-to-date|Available|Age|+Containers|+Images|+Selector")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![
            cells.name(),
            json!(format!("{}/{}", cells.int(&["status", "readyReplicas"]), cells.int(&["spec", "replicas"]))),
            json!(cells.int(&["status", "updatedReplicas"])),
            json!(cells.int(&["status", "availableReplicas"])),
            cells.age(),
        ];
        template_cells(cells, &mut row);
        row
    }
}

fn deployment(object: &At<'_>) {
    let spec = object.at("spec");
    spec.at("replicas").non_negative();
    selector_matches(&spec, "deployment");
    template_matches(&spec);
    always_template(&spec, "ReplicaSet");
    deployment_strategy(&spec.at("strategy"));
    spec.at("minReadySeconds").non_negative();
    spec.at("revisionHistoryLimit").non_negative();
    let deadline = spec.at("progressDeadlineSeconds");
    deadline.non_negative();
    if deadline.int().is_some_and(|seconds| seconds <= spec.at("minReadySeconds").int().unwrap_or(0)) {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

fn deployment_strategy(strategy: &At<'_>) {
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" if !rolling.is_set() => rolling.required("this should be defaulted and never be nil"),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            int_or_percent(&unavailable);
            int_or_percent(&surge);
            if amount(&unavailable) == 0 && amount(&surge) == 0 {
                unavailable.invalid_as(
                    if unavailable.is_set() { unavailable.value.clone() } else { Value::from(0) },
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            at_most_all(&unavailable);
        }
        _ => strategy.at("type").not_supported(&["Recreate", "RollingUpdate"]),
    }
}
