//! HorizontalPodAutoscalers, served as v1 and v2.

mod convert;
mod table;
mod validate;

use serde_json::{Value, json};

use crate::default::{Lit::*, Object, Set, each, fill, object as child, set, unset};
use crate::gvk::GroupVersionKind;
use crate::kinds::workload;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// A scale that follows metrics.
pub(crate) struct HorizontalPodAutoscaler;

impl Kind for HorizontalPodAutoscaler {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("status", "desiredReplicas", I(0))]);
        fill(object, if version == "v1" { &[Set("status", "currentReplicas", I(0))] } else { &[Set("status", "currentMetrics", Null)] });
        autoscaler(version, object);
    }

    fn validate_create(&self, object: &At<'_>) {
        validate::autoscaler(object, None);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        validate::autoscaler(object, Some(old));
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        workload::status(object);
    }

    fn convert(&self, mut object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
        match (from.version.as_ref(), to.version.as_ref()) {
            ("v1", "v2") => convert::to_v2(&mut object)?,
            ("v2", "v1") => convert::to_v1(&mut object)?,
            _ => return Err(format!("{from} cannot be converted to {to}")),
        }
        Ok(object)
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Reference|Targets|MinPods|MaxPods|Replicas|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(table::autoscaler(cells));
        row
    }
}

fn autoscaler(version: &str, object: &mut Value) {
    fill(object, &[Set("spec", "minReplicas", I(1))]);
    if version != "v2" {
        return;
    }
    each(object, "spec", &mut |spec| {
        if unset(spec, "metrics") {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
            spec.insert("metrics".to_owned(), metric);
        }
        if let Some(Value::Object(behavior)) = spec.get_mut("behavior") {
            scaling_rules(
                behavior,
                "scaleUp",
                Some(0),
                json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
            scaling_rules(behavior, "scaleDown", None, json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    });
}

fn scaling_rules(behavior: &mut Object, direction: &str, window_secs: Option<i64>, policies: Value) {
    let Some(rules) = child(behavior, direction) else { return };
    if let Some(seconds) = window_secs {
        set(rules, "stabilizationWindowSeconds", I(seconds));
    }
    set(rules, "selectPolicy", S("Max"));
    if rules.get("policies").is_none_or(Value::is_null) {
        rules.insert("policies".to_owned(), policies);
    }
}
