//! DaemonSets. Upstream: `pkg/registry/apps/daemonset/strategy.go`.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::kinds::core::pod;
use crate::kinds::text::labels;
use crate::kinds::workload::{self, always_template, amount, at_most_all, int_or_percent, rolling_update, template_cells};
use crate::meta;
use crate::resource::{Cells, Column, Kind};
use crate::time::Timestamp;
use crate::validate::{At, metadata, same};

const DAEMON_SET: &[Set] = &[
    Set("", "spec", Obj),
    Set("spec", "selector", Null),
    Set("spec", "template", Obj),
    Set("spec", "updateStrategy", Obj),
    Set("", "status", Obj),
    Set("status", "currentNumberScheduled", I(0)),
    Set("status", "desiredNumberScheduled", I(0)),
    Set("status", "numberMisscheduled", I(0)),
    Set("status", "numberReady", I(0)),
];

/// A pod on every node.
pub(crate) struct DaemonSet;

impl Kind for DaemonSet {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        pod::MISSING
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, DAEMON_SET);
        pod::default::template(object, "spec.template");
        fill(object, &[Set("spec.updateStrategy", "type", S("RollingUpdate")), Set("spec", "revisionHistoryLimit", I(10))]);
        rolling_update(object, "spec.updateStrategy", &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))]);
    }

    fn prepare_for_create(&self, object: &mut Value, _now: Timestamp) {
        template_generation(object, 1);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        let previous = meta::annotation(old, TEMPLATE_GENERATION).and_then(|text| text.parse::<i64>().ok()).unwrap_or(1);
        let changed = !same(&object["spec"]["template"], &old["spec"]["template"]);
        template_generation(object, previous.saturating_add(i64::from(changed)));
    }

    fn validate(&self, object: &At<'_>) {
        daemon_set(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        daemon_set(object);
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
        Column::parse("Name#|Desired:i|Current:i|Ready:i|Up-to-date:i|Available:i|Node Selector|Age|+Containers|+Images|+Selector")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        const COUNTERS: [&str; 5] =
            ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"];
        let mut row = vec![cells.name()];
        row.extend(COUNTERS.iter().map(|field| json!(cells.int(&["status", field]))));
        row.push(json!(labels(cells.at(&["spec", "template", "spec", "nodeSelector"]))));
        row.push(cells.age());
        template_cells(cells, &mut row);
        row
    }
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &mut Value, generation: i64) {
    meta::set_annotation(object, TEMPLATE_GENERATION, &generation.to_string());
}

fn daemon_set(object: &At<'_>) {
    let spec = object.at("spec");
    metadata::selector(&spec.at("selector"));
    let labels = spec.at("template").at("metadata").at("labels");
    if !metadata::selects(spec.at("selector").value, &labels) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
    let selector = spec.at("selector");
    if selector.is_set() && metadata::is_empty_selector(&selector) {
        selector.invalid("empty selector is invalid for daemonset");
    }
    always_template(&spec, "DaemonSet");
    spec.at("minReadySeconds").non_negative();
    daemon_set_strategy(&spec.at("updateStrategy"));
    spec.at("revisionHistoryLimit").non_negative();
}

fn daemon_set_strategy(strategy: &At<'_>) {
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required(""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            for field in [&unavailable, &surge] {
                int_or_percent(field);
                at_most_all(field);
            }
            match (amount(&unavailable) != 0, amount(&surge) != 0) {
                (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero"),
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => strategy.invalid_as(strategy.value.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}
