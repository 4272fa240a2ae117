//! Small texts that table cells are made of.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::meta;
use crate::resource::Cells;
use crate::selector::LabelSelector;

pub(crate) const NONE: &str = "<none>";

pub(crate) const UNSET: &str = "<unset>";

pub(crate) const UNKNOWN: &str = "<unknown>";

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels(labels: &Value) -> String {
    let pairs: Vec<String> =
        labels.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or(pairs.join(","), NONE)
}

/// A label selector as kubectl takes it, `<none>` if it selects everything, `<error>` if it is none.
pub(crate) fn selector(selector: &Value) -> String {
    match LabelSelector::from_object(selector) {
        Ok(selector) if selector.requirements().is_empty() => NONE.to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of containers.
pub(crate) fn containers(containers: &[Value]) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let parts: Vec<&str> = containers.iter().map(|container| container[field].as_str().unwrap_or_default()).collect();
        Value::from(parts.join(","))
    })
}

/// The first `max` of a list, and how many more there are.
pub(crate) fn some(list: &[String], max: usize, separator: &str) -> String {
    let shown = list[..list.len().min(max)].join(separator);
    if list.len() > max { format!("{shown} + {} more...", list.len() - max) } else { shown }
}

pub(crate) fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}

/// A number or string as it is written.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `True`, `False`, or `<unset>`.
pub(crate) fn flag(value: &Value) -> &'static str {
    match value.as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
}

/// The strings of a list.
pub(crate) fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(plain).collect()
}

/// The condition of that type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    meta::list_at(object, &["status", "conditions"]).iter().find(|condition| condition["type"] == kind)
}

/// Addresses and names of a load balancer.
pub(crate) fn ingress_points(cells: &Cells<'_>) -> Vec<String> {
    let points: BTreeSet<String> = cells
        .list(&["status", "loadBalancer", "ingress"])
        .iter()
        .map(|point| or(plain(&point["ip"]), point["hostname"].as_str().unwrap_or_default()))
        .filter(|point| !point.is_empty())
        .collect();
    points.into_iter().collect()
}

pub(crate) fn access_modes(modes: &Value) -> String {
    let given = strings(modes);
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
        .iter()
        .filter(|(mode, _)| given.iter().any(|one| one == mode))
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

pub(crate) fn phase(cells: &Cells<'_>) -> Value {
    match meta::deletion_timestamp(cells.object) {
        Some(_) => json!("Terminating"),
        None => json!(cells.text(&["status", "phase"])),
    }
}

/// The class by the old annotation, else by the field.
pub(crate) fn storage_class(cells: &Cells<'_>) -> Value {
    let old = meta::annotation(cells.object, "volume.beta.kubernetes.io/storage-class");
    json!(old.unwrap_or(cells.text(&["spec", "storageClassName"])))
}

pub(crate) fn size(value: &Value) -> String {
    crate::quantity::canonicalize(value).unwrap_or_else(|| "0".to_owned())
}
