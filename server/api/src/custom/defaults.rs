//! Defaulting: absent fields, and nulls where null is no value, get the default of their schema.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/defaulting/algorithm.go`.

use serde_json::Value;

use super::structural::Structural;

/// Fills in the defaults of a schema, from the outside to the inside.
pub fn fill(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (key, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let unset = match map.get(key) {
                    None => true,
                    Some(inner) => inner.is_null() && !property.nullable,
                };
                if unset {
                    map.insert(key.clone(), default.clone());
                }
            }
            for (key, inner) in map.iter_mut() {
                let own = schema.properties.get(key);
                let Some(field) = own.or_else(|| schema.values()) else { continue };
                if own.is_none() {
                    set_null(inner, field);
                }
                fill(inner, field);
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return };
            for item in items {
                set_null(item, inner);
                fill(item, inner);
            }
        }
        _ => {}
    }
}

fn set_null(value: &mut Value, schema: &Structural) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_go_from_outside_to_inside() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {"a": 1}, "properties": {
                "a": {"type": "integer", "default": 5}, "b": {"type": "string", "default": "x"}}},
            "n": {"type": "string", "nullable": true, "default": "n"},
            "map": {"type": "object", "additionalProperties": {"type": "object", "default": {"k": 1}, "properties": {"z": {"type": "integer", "default": 0}}}},
            "list": {"type": "array", "items": {"type": "string", "default": "i"}},
            "none": {"type": "object", "properties": {"c": {"type": "string", "default": "c"}}},
        }}))
        .unwrap();
        let mut object = json!({"n": null, "map": {"m": null}, "list": [null, "j"]});
        fill(&mut object, &schema);
        assert_eq!(object, json!({"spec": {"a": 1, "b": "x"}, "n": null, "map": {"m": {"k": 1, "z": 0}}, "list": ["i", "j"]}));
        let mut object = json!({"spec": {"a": null}, "n": "q", "none": {}});
        fill(&mut object, &schema);
        assert_eq!(object, json!({"spec": {"a": 5, "b": "x"}, "n": "q", "none": {"c": "c"}}));
    }
}
