//! Lists whose items must be unique: sets, and maps by their keys.
//!
//! Each list is read once: duplicates are found by the items' JSON in a hash set.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/listtype`.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::structural::{ListType, Structural};
use crate::field::{FieldError, FieldErrors, FieldPath};

/// The items that stand twice, anywhere in an object.
pub fn duplicates(object: &Value, schema: &Structural) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk(object, schema, &FieldPath::root(), &mut errors);
    errors
}

fn walk(value: &Value, schema: &Structural, path: &FieldPath, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                if let Some(property) = schema.properties.get(key) {
                    walk(inner, property, &path.child(key), errors);
                } else if let Some(values) = schema.values() {
                    walk(inner, values, &path.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type {
                ListType::Set => set(items, path, errors),
                ListType::Map => map(items, schema, path, errors),
                ListType::Atomic => {}
            }
            if let Some(inner) = schema.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    walk(item, inner, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn set(items: &[Value], path: &FieldPath, errors: &mut FieldErrors) {
    for (index, item) in repeated(items.iter()) {
        errors.push(FieldError::duplicate(&path.index(index), item.clone()));
    }
}

fn map(items: &[Value], schema: &Structural, path: &FieldPath, errors: &mut FieldErrors) {
    if let Some((index, item)) = items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        errors.push(FieldError::invalid(&path.index(index), item.clone(), "must be an object for an array of list-type map"));
        return;
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let known = schema.list_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Value::Object(known.collect::<Map<_, _>>())
        })
        .collect();
    for (index, key) in repeated(keys.iter()) {
        errors.push(FieldError::duplicate(&path.index(index), key.clone()));
    }
}

/// Each value that stands more than once, at its second place.
fn repeated<'a>(values: impl ExactSizeIterator<Item = &'a Value>) -> Vec<(usize, &'a Value)> {
    if values.len() < 2 {
        return Vec::new();
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(values.len());
    let mut found = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push((index, value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sets_and_maps_are_unique() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object"}},
            "free": {"type": "array", "items": {"type": "string"}},
        }}}}))
        .unwrap();
        let texts = |object: Value| duplicates(&object, &schema).iter().map(ToString::to_string).collect::<Vec<_>>();
        let object = json!({"spec": {"tags": ["a", "b", "a", "a"], "free": ["x", "x"], "ports": [
            {"port": 1, "protocol": "TCP"}, {"port": 1}, {"port": 1, "protocol": "TCP", "x": 1}]}});
        assert_eq!(
            texts(object),
            [r#"spec.ports[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#, r#"spec.tags[2]: Duplicate value: "a""#]
        );
        assert_eq!(
            texts(json!({"spec": {"ports": [1]}})),
            ["spec.ports[0]: Invalid value: 1: must be an object for an array of list-type map"]
        );
    }
}
