//! Small texts that cells are made of.

use serde_json::Value;

use crate::selector::LabelSelector;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(labels: &Value) -> String {
    let pairs: Vec<String> =
        labels.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or(pairs.join(","), NONE)
}

/// A label selector as kubectl takes it, `<none>` if it selects everything, `<error>` if it is none.
pub(super) fn selector(selector: &Value) -> String {
    match LabelSelector::from_object(selector) {
        Ok(selector) if selector.requirements().is_empty() => NONE.to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of containers.
pub(super) fn containers(containers: &[Value]) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let parts: Vec<&str> = containers.iter().map(|container| container[field].as_str().unwrap_or_default()).collect();
        Value::from(parts.join(","))
    })
}

/// The first `max` of a list, and how many more there are.
pub(super) fn some(list: &[String], max: usize, separator: &str) -> String {
    let shown = list[..list.len().min(max)].join(separator);
    if list.len() > max { format!("{shown} + {} more...", list.len() - max) } else { shown }
}

pub(super) fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}

/// A number or string as it is written.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `True`, `False`, or `<unset>`.
pub(super) fn flag(value: &Value) -> &'static str {
    match value.as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    }
}

/// The strings of a list.
pub(super) fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(plain).collect()
}

/// The condition of that type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    crate::meta::list_at(object, &["status", "conditions"]).iter().find(|condition| condition["type"] == kind)
}
