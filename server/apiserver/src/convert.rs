//! Conversion between versions of one kind: the storage version is the hub.
//!
//! Of the built-in kinds only Events (core and events.k8s.io) and HorizontalPodAutoscalers (v1 and v2) are served in two
//! versions. Answers to upstream's `pkg/apis/autoscaling/v1/conversion.go` and `pkg/apis/events/v1/conversion.go`.

use serde_json::{Map, Value, json};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::meta;

/// Converts an object. An error names what has no counterpart.
pub fn convert(mut object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
    match (from.group.as_ref(), from.version.as_ref(), to.group.as_ref(), to.version.as_ref(), from.kind.as_ref()) {
        ("", "v1", "events.k8s.io", "v1", "Event") => rename(&mut object, &EVENT_FIELDS, false),
        ("events.k8s.io", "v1", "", "v1", "Event") => rename(&mut object, &EVENT_FIELDS, true),
        ("autoscaling", "v1", "autoscaling", "v2", _) => hpa_to_v2(&mut object)?,
        ("autoscaling", "v2", "autoscaling", "v1", _) => hpa_to_v1(&mut object)?,
        _ if from == to => {}
        _ => return Err(format!("{from} cannot be converted to {to}")),
    }
    meta::set_gvk(&mut object, to);
    Ok(object)
}

/// Removes kind and apiVersion: items of a typed list carry none.
pub fn strip_type(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
}

/// Core name and events.k8s.io name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Value, fields: &[(&str, &str)], back: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (core, new) in fields {
        let (from, to) = if back { (new, core) } else { (core, new) };
        if let Some(value) = map.remove(*from) {
            map.insert((*to).to_owned(), value);
        }
    }
}

// What v1 cannot say is kept in annotations.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn hpa_to_v2(hpa: &mut Value) -> Result<(), String> {
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

fn hpa_to_v1(hpa: &mut Value) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hpa_round_trips() {
        let (v1, v2) = (GroupVersionKind::new("autoscaling", "v1", "H"), GroupVersionKind::new("autoscaling", "v2", "H"));
        let object = json!({
            "apiVersion": "autoscaling/v2", "kind": "H", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                {"type": "Pods", "pods": {"metric": {"name": "m"}}}]},
            "status": {"conditions": [{"type": "x"}], "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}]}
        });
        let old = convert(object.clone(), &v2, &v1).unwrap();
        assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 70);
        assert_eq!(old["status"], json!({"currentCPUUtilizationPercentage": 5}));
        assert_eq!(convert(old, &v1, &v2).unwrap(), object);
    }
}
