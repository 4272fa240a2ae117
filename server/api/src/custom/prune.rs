//! Pruning: fields that a schema does not name are dropped. Nulls where null is no value are dropped too, so that a default takes
//! their place.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/pruning` and `defaulting/prunenulls.go`.

use serde_json::Value;

use super::structural::{Additional, Structural};

/// Removes the fields that the schema of a whole object does not name, except `apiVersion`, `kind` and `metadata`. The removed paths
/// come out sorted.
pub fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut pruner = Pruner::default();
    pruner.value(object, Some(schema), true, false);
    pruner.dropped.sort();
    pruner.dropped
}

/// Drops what a schema does not name from a value that is no object of its own, like a default.
pub fn prune_value(value: &mut Value, schema: &Structural) {
    Pruner::default().value(value, Some(schema), schema.is_embedded, false);
}

/// More than this many paths are not reported.
const DROPPED_MAX: usize = 100;

#[derive(Default)]
struct Pruner {
    path: String,
    dropped: Vec<String>,
}

fn is_meta(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}

impl Pruner {
    /// `keeps`: fields without a schema stay, because an enclosing schema preserves unknown fields.
    fn value(&mut self, value: &mut Value, schema: Option<&Structural>, embedded: bool, keeps: bool) {
        let keeps = keeps || schema.is_some_and(|schema| schema.preserves_unknown);
        match value {
            Value::Object(map) => {
                let at_root = self.path.is_empty();
                let len = self.path.len();
                map.retain(|key, inner| {
                    if embedded && is_meta(key) {
                        return true;
                    }
                    self.push(key);
                    let kept = self.member(key, inner, schema, keeps);
                    if !(kept || at_root && is_meta(key)) && self.dropped.len() < DROPPED_MAX {
                        self.dropped.push(self.path.clone());
                    }
                    self.path.truncate(len);
                    kept
                });
            }
            Value::Array(items) => {
                let inner = schema.and_then(|schema| schema.items.as_deref());
                if keeps && inner.is_none() {
                    return;
                }
                let len = self.path.len();
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.value(item, inner, inner.is_some_and(|inner| inner.is_embedded), keeps);
                    self.path.truncate(len);
                }
            }
            _ => {}
        }
    }

    /// Whether a field of an object stays; what is in it is pruned.
    fn member(&mut self, key: &str, value: &mut Value, schema: Option<&Structural>, keeps: bool) -> bool {
        let Some(schema) = schema else { return keeps };
        if let Some(field) = schema.field(key) {
            self.value(value, Some(field), field.is_embedded, false);
            return true;
        }
        match schema.additional {
            // Any value, and nothing below it has a schema.
            Some(Additional::Allowed(_)) if !keeps => {
                self.value(value, None, false, false);
                true
            }
            _ => keeps,
        }
    }

    fn push(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }
}

/// Drops nulls of fields that cannot be null and have no default.
pub fn prune_nulls(value: &mut Value, schema: Option<&Structural>) {
    match value {
        Value::Object(map) => map.retain(|key, inner| {
            let field = schema.and_then(|schema| schema.field(key));
            if inner.is_null() {
                return field.is_none_or(|field| field.nullable || field.default.is_some());
            }
            prune_nulls(inner, field);
            true
        }),
        Value::Array(items) => {
            let inner = schema.and_then(|schema| schema.items.as_deref());
            items.iter_mut().for_each(|item| prune_nulls(item, inner));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pruned(schema: Value, mut object: Value) -> (Value, Vec<String>) {
        let dropped = prune(&mut object, &Structural::parse(&schema).unwrap());
        (object, dropped)
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "string"}}}},
                "any": {"type": "object", "additionalProperties": true},
            }},
        }});
        let object = json!({"apiVersion": "v", "kind": "k", "metadata": {"x": 1}, "zz": 1, "spec": {
            "list": [{"a": "1", "c": 1}, 5], "map": {"k": {"b": "1", "d": 1}}, "any": {"s": "x", "o": {"deep": 1}}, "metadata": 1}});
        let (object, dropped) = pruned(schema, object);
        assert_eq!(
            object,
            json!({"apiVersion": "v", "kind": "k", "metadata": {"x": 1}, "spec": {
                "list": [{"a": "1"}, 5], "map": {"k": {"b": "1"}}, "any": {"s": "x", "o": {}}}})
        );
        assert_eq!(dropped, ["spec.any.o.deep", "spec.list[0].c", "spec.map.k.d", "spec.metadata", "zz"]);
    }

    #[test]
    fn what_preserves_keeps_but_what_has_a_schema_below_is_pruned() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
            "list": {"type": "array", "x-kubernetes-preserve-unknown-fields": true},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }});
        let object = json!({"x": {"y": 1}, "spec": {"a": "1", "b": 1}, "list": [{"z": 1}], "template": {"kind": "K", "metadata": {"n": 1}, "q": 1, "spec": {"r": 1}}});
        let (object, dropped) = pruned(schema, object);
        assert_eq!(
            object,
            json!({"x": {"y": 1}, "spec": {"a": "1"}, "list": [{"z": 1}], "template": {"kind": "K", "metadata": {"n": 1}, "spec": {}}})
        );
        assert_eq!(dropped, ["spec.b", "template.q", "template.spec.r"]);
    }

    #[test]
    fn nulls_stay_where_null_is_a_value_or_has_a_default() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "string", "nullable": true}, "c": {"type": "string", "default": "x"}}}))
        .unwrap();
        let mut object = json!({"a": null, "b": null, "c": null, "unknown": null});
        prune_nulls(&mut object, Some(&schema));
        assert_eq!(object, json!({"b": null, "c": null, "unknown": null}));
    }
}
