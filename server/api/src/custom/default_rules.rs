//! Checks that each default is valid under its own schema and unchanged by pruning.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go`.

use super::embedded::{self, Malformed};
use super::structural::Structural;
use super::validations::Validations;
use super::{prune, values};
use crate::field::{FieldError, FieldErrors, FieldPath};

/// The defaults of a schema that are no values of it.
pub fn check(schema: &Structural, path: &FieldPath) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk(schema, path, false, &mut errors);
    errors
}

fn walk(schema: &Structural, path: &FieldPath, in_meta: bool, errors: &mut FieldErrors) {
    if schema.default.is_some() {
        errors.extend(judge(schema, &path.child("default"), in_meta));
    }
    if let Some(items) = &schema.items {
        walk(items, &path.child("items"), in_meta, errors);
    }
    for (key, property) in &schema.properties {
        let in_meta = in_meta || (schema.is_embedded && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        walk(property, &path.child("properties").key(key), in_meta, errors);
    }
    // Maps too: upstream leaves those out because their defaults were once forbidden.
    if let Some(values) = schema.values() {
        walk(values, &path.child("additionalProperties"), in_meta, errors);
    }
}

fn judge(schema: &Structural, path: &FieldPath, in_meta: bool) -> FieldErrors {
    let Some(default) = &schema.default else { return FieldErrors::new() };
    if !in_meta {
        let mut pruned = default.clone();
        prune::prune_value(&mut pruned, schema);
        if pruned != *default {
            return vec![FieldError::invalid(path, default.clone(), "must not have unknown fields")];
        }
        let mut conformed = default.clone();
        if let Err(mut error) = embedded::conform(&mut conformed, schema, Malformed::Refuse) {
            error.path = format!("{path}.{}", error.path);
            return vec![error];
        }
        let mut found = embedded::check(default, schema, false);
        if !found.is_empty() {
            found.iter_mut().for_each(|error| error.path = format!("{path}.{}", error.path));
            return found;
        }
    }
    let found = values::check(default, None, schema, path.as_str());
    match Validations::compile(schema, schema.is_embedded) {
        Some(rules) if found.is_empty() && !in_meta => {
            let mut found = rules.check_default(default, schema);
            found.iter_mut().for_each(|error| error.path = below(path, &error.path));
            found
        }
        _ => found,
    }
}

fn below(path: &FieldPath, inner: &str) -> String {
    match inner {
        "<nil>" => path.to_string(),
        inner if inner.starts_with('[') => format!("{path}{inner}"),
        inner => format!("{path}.{inner}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn texts(schema: Value) -> Vec<String> {
        let schema = Structural::parse(&json!({"type": "object", "properties": {"a": schema}})).unwrap();
        check(&schema, &FieldPath::new("s")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_default_is_a_value_of_its_schema() {
        assert!(texts(json!({"type": "object", "default": {"b": 1}, "properties": {"b": {"type": "integer"}}})).is_empty());
        assert_eq!(
            texts(json!({"type": "object", "default": {"c": 1}, "properties": {"b": {"type": "integer"}}})),
            [r#"s.properties[a].default: Invalid value: {"c":1}: must not have unknown fields"#]
        );
        assert_eq!(
            texts(json!({"type": "object", "default": {"b": "x"}, "properties": {"b": {"type": "integer"}}})),
            [r#"s.properties[a].default.b: Invalid value: "string": b in body must be of type integer: "string""#]
        );
        assert_eq!(
            texts(json!({"type": "array", "items": {"type": "string", "default": "long", "maxLength": 2}})),
            ["s.properties[a].items.default: Too long: may not be more than 2 bytes"]
        );
        assert_eq!(
            texts(json!({"type": "string", "default": "b", "x-kubernetes-validations": [{"rule": "self == 'a'"}]})),
            [r#"s.properties[a].default: Invalid value: "b": failed rule: self == 'a'"#]
        );
    }
}
