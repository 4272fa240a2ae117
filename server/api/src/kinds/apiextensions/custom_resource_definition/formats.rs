//! Warnings about unknown formats in the schemas of a definition.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::custom::is_known_format;

/// The unknown formats of all versions.
pub(super) fn unknown(object: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in object["spec"]["versions"].as_array().into_iter().flatten() {
        walk(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

fn walk(schema: &Value, found: &mut BTreeSet<String>) {
    let Some(map) = schema.as_object() else { return };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    if !text("format").is_empty() && !is_known_format(text("type"), text("format")) {
        found.insert(text("format").to_owned());
    }
    for key in ["items", "additionalProperties", "not"] {
        walk(map.get(key).unwrap_or(&Value::Null), found);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        map.get(key).and_then(Value::as_array).into_iter().flatten().for_each(|inner| walk(inner, found));
    }
    map.get("properties").and_then(Value::as_object).into_iter().flatten().for_each(|(_, inner)| walk(inner, found));
}
