//! Conversion between v1 and v2. Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

use serde_json::{Map, Value, json};

use crate::meta;

// What v1 cannot say is kept in annotations.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

pub(crate) fn to_v2(hpa: &mut Value) -> Result<(), String> {
    let mut metrics = taken_annotation(hpa, METRICS)?.and_then(|v| v.as_array().cloned()).unwrap_or_default();
    let behavior = taken_annotation(hpa, BEHAVIOR)?;
    let current = taken_annotation(hpa, CURRENT_METRICS)?;
    let conditions = taken_annotation(hpa, CONDITIONS)?;
    let spec = meta::map_at(hpa, "spec");
    if let Some(target) = spec.remove("targetCPUUtilizationPercentage").filter(|v| !v.is_null()) {
        metrics.insert(
            0,
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}),
        );
    }
    if !metrics.is_empty() {
        spec.insert("metrics".to_owned(), Value::Array(metrics));
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    if hpa.get("status").is_some() || current.is_some() || conditions.is_some() {
        let status = meta::map_at(hpa, "status");
        let mut list = current.and_then(|v| v.as_array().cloned()).unwrap_or_default();
        if let Some(now) = status.remove("currentCPUUtilizationPercentage").filter(|v| !v.is_null()) {
            list.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": now}}}));
        }
        if !list.is_empty() {
            status.insert("currentMetrics".to_owned(), Value::Array(list));
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    Ok(())
}

pub(crate) fn to_v1(hpa: &mut Value) -> Result<(), String> {
    let spec = meta::map_at(hpa, "spec");
    let mut metrics = spec.remove("metrics").and_then(|v| v.as_array().cloned()).unwrap_or_default();
    let behavior = spec.remove("behavior").filter(|v| !v.is_null());
    if let Some(at) = metrics
        .iter()
        .position(|m| m["type"] == "Resource" && m["resource"]["name"] == "cpu" && m["resource"]["target"]["averageUtilization"].is_i64())
    {
        let target = metrics.remove(at)["resource"]["target"]["averageUtilization"].clone();
        spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
    }
    let (mut current, mut conditions) = (Vec::new(), None);
    if let Some(status) = hpa.get_mut("status").and_then(Value::as_object_mut) {
        current = status.remove("currentMetrics").and_then(|v| v.as_array().cloned()).unwrap_or_default();
        conditions = status.remove("conditions").filter(|v| v.as_array().is_some_and(|l| !l.is_empty()));
        if let Some(at) = current.iter().position(|m| m["type"] == "Resource" && m["resource"]["name"] == "cpu") {
            let now = current.remove(at)["resource"]["current"]["averageUtilization"].clone();
            if !now.is_null() {
                status.insert("currentCPUUtilizationPercentage".to_owned(), now);
            }
        }
    }
    keep_annotation(hpa, METRICS, (!metrics.is_empty()).then_some(Value::Array(metrics)));
    keep_annotation(hpa, BEHAVIOR, behavior);
    keep_annotation(hpa, CURRENT_METRICS, (!current.is_empty()).then_some(Value::Array(current)));
    keep_annotation(hpa, CONDITIONS, conditions);
    Ok(())
}

fn taken_annotation(object: &mut Value, key: &str) -> Result<Option<Value>, String> {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return Ok(None) };
    let Some(text) = annotations.remove(key) else { return Ok(None) };
    let empty = annotations.is_empty();
    if empty {
        meta::remove(object, "annotations");
    }
    serde_json::from_str(text.as_str().unwrap_or_default()).map(Some).map_err(|e| format!("annotation {key}: {e}"))
}

fn keep_annotation(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        let map: &mut Map<String, Value> = meta::metadata_mut(object);
        let annotations = map.entry("annotations").or_insert_with(|| json!({}));
        annotations[key] = Value::String(value.to_string());
    }
}
