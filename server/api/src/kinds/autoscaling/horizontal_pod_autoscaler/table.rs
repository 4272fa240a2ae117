//! The cells of an autoscaler of either version.

use serde_json::{Value, json};

use crate::kinds::text::{NONE, UNKNOWN, UNSET, or, plain, some};
use crate::resource::Cells;

/// Reference, Targets, MinPods, MaxPods, Replicas, Age; of both versions.
pub(crate) fn autoscaler(cells: &Cells<'_>) -> Vec<Value> {
    let target = cells.at(&["spec", "scaleTargetRef"]);
    let least = cells.at(&["spec", "minReplicas"]).as_i64();
    vec![
        json!(format!("{}/{}", plain(&target["kind"]), plain(&target["name"]))),
        json!(targets(cells)),
        json!(least.map_or_else(|| UNSET.to_owned(), |count| count.to_string())),
        json!(cells.int(&["spec", "maxReplicas"])),
        json!(cells.int(&["status", "currentReplicas"])),
        cells.age(),
    ]
}

fn targets(cells: &Cells<'_>) -> String {
    let wanted = cells.at(&["spec", "targetCPUUtilizationPercentage"]);
    if let Some(percent) = wanted.as_i64() {
        let current = cells.at(&["status", "currentCPUUtilizationPercentage"]).as_i64();
        return format!("cpu: {}/{percent}%", current.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value}%")));
    }
    let current = cells.list(&["status", "currentMetrics"]);
    let all: Vec<String> = cells
        .list(&["spec", "metrics"])
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    or(some(&all, 2, ", "), NONE)
}

fn metric(spec: &Value, status: &Value) -> String {
    let source = match spec["type"].as_str().unwrap_or_default() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[source]["target"], &status[source]["current"]);
    let named = matches!(source, "resource" | "containerResource");
    let prefix = if named { format!("{}: ", plain(&spec[source]["name"])) } else { String::new() };
    let shown = |value: &Value| or(plain(value), UNKNOWN);
    let average = !target["averageValue"].is_null();
    if named && !average {
        let percent = |value: &Value, otherwise: &str| value.as_i64().map_or_else(|| otherwise.to_owned(), |value| format!("{value}%"));
        return format!(
            "{prefix}{}/{}",
            percent(&current["averageUtilization"], UNKNOWN),
            percent(&target["averageUtilization"], "<auto>")
        );
    }
    if average {
        let suffix = if matches!(source, "external" | "object") { " (avg)" } else { "" };
        return format!("{prefix}{}/{}{suffix}", shown(&current["averageValue"]), plain(&target["averageValue"]));
    }
    format!("{prefix}{}/{}", shown(&current["value"]), plain(&target["value"]))
}
