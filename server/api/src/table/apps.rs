//! Rows of apps, batch and autoscaling.

use serde_json::{Value, json};

use super::Cells;
use super::text::{NONE, UNKNOWN, UNSET, condition, containers, flag, labels, or, plain, selector, some};
use crate::meta;

/// Appends the cells after the name.
pub(super) fn row(plural: &str, cells: &Cells<'_>, row: &mut Vec<Value>) {
    match plural {
        "deployments" => {
            row.extend([
                json!(format!("{}/{}", cells.int(&["status", "readyReplicas"]), cells.int(&["spec", "replicas"]))),
                json!(cells.int(&["status", "updatedReplicas"])),
                json!(cells.int(&["status", "availableReplicas"])),
                cells.age(),
            ]);
            template(cells, row);
        }
        "replicasets" => {
            row.extend([
                json!(cells.int(&["spec", "replicas"])),
                json!(cells.int(&["status", "replicas"])),
                json!(cells.int(&["status", "readyReplicas"])),
                cells.age(),
            ]);
            template(cells, row);
        }
        "statefulsets" => {
            let ready = format!("{}/{}", cells.int(&["status", "readyReplicas"]), cells.int(&["spec", "replicas"]));
            row.extend([json!(ready), cells.age()]);
            row.extend(containers(cells.list(&["spec", "template", "spec", "containers"])));
        }
        "daemonsets" => {
            for field in ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable"] {
                row.push(json!(cells.int(&["status", field])));
            }
            row.push(json!(labels(cells.at(&["spec", "template", "spec", "nodeSelector"]))));
            row.push(cells.age());
            template(cells, row);
        }
        "controllerrevisions" => row.extend(revision(cells)),
        "jobs" => {
            row.extend([json!(job_status(cells)), json!(completions(cells)), json!(duration(cells)), cells.age()]);
            template(cells, row);
        }
        "cronjobs" => {
            let last = match cells.text(&["status", "lastScheduleTime"]) {
                "" => NONE.to_owned(),
                time => cells.since(time),
            };
            row.extend([
                json!(cells.text(&["spec", "schedule"])),
                cells.text_or(&["spec", "timeZone"], NONE),
                json!(flag(cells.at(&["spec", "suspend"]))),
                json!(cells.list(&["status", "active"]).len()),
                json!(last),
                cells.age(),
            ]);
            row.extend(containers(cells.list(&["spec", "jobTemplate", "spec", "template", "spec", "containers"])));
            row.push(json!(selector_of(cells.at(&["spec", "jobTemplate", "spec", "selector"]))));
        }
        "horizontalpodautoscalers" => row.extend(autoscaler(cells)),
        _ => {}
    }
}

/// Containers, Images, Selector.
fn template(cells: &Cells<'_>, row: &mut Vec<Value>) {
    row.extend(containers(cells.list(&["spec", "template", "spec", "containers"])));
    row.push(json!(selector_of(cells.at(&["spec", "selector"]))));
}

/// An absent selector prints as one that selects everything.
fn selector_of(value: &Value) -> String {
    if value.is_null() { NONE.to_owned() } else { selector(value) }
}

fn revision(cells: &Cells<'_>) -> Vec<Value> {
    let controller = meta::controller_of(cells.object).map_or_else(
        || NONE.to_owned(),
        |owner| {
            let version = owner["apiVersion"].as_str().unwrap_or_default();
            let group = version.split_once('/').map_or("", |(group, _)| group);
            let kind = plain(&owner["kind"]).to_lowercase();
            let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{kind}/{}", plain(&owner["name"]))
        },
    );
    vec![json!(controller), json!(cells.int(&["revision"])), cells.age()]
}

fn job_status(cells: &Cells<'_>) -> &'static str {
    let is = |kind: &str| condition(cells.object, kind).is_some_and(|condition| condition["status"] == "True");
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(cells.object).is_some() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(cells: &Cells<'_>) -> String {
    let done = cells.int(&["status", "succeeded"]);
    match cells.at(&["spec", "completions"]).as_i64() {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match cells.int(&["spec", "parallelism"]) {
            parallel if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

fn duration(cells: &Cells<'_>) -> String {
    let start = cells.text(&["status", "startTime"]);
    let end = crate::time::parse(cells.text(&["status", "completionTime"])).unwrap_or(cells.now);
    if start.is_empty() { String::new() } else { crate::time::age(start, end) }
}

/// Reference, Targets, MinPods, MaxPods, Replicas, Age; of both versions.
fn autoscaler(cells: &Cells<'_>) -> Vec<Value> {
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
