//! Whether a schema is structural: every field has a type outside of `allOf`, `anyOf`, `oneOf` and `not`, and what stands inside of those
//! only restricts values.
//!
//! Messages and paths are those of upstream's `apiextensions-apiserver/pkg/apiserver/schema/validation.go` and `complete.go`.

use serde_json::{Value, json};

use crate::field::{FieldError, FieldErrors, FieldPath};
use crate::validate::{At, Errors};

use super::pattern::Pattern;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Keys under which schemas are joined.
const JOINTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// What keeps a schema from being structural, sorted.
pub fn check(schema: &At<'_>) -> FieldErrors {
    let errors = Errors::default();
    let at = At::new(schema.value, schema.path.clone(), &errors);
    invariants(&at, Level::Root);
    completeness(&at, schema.value, &schema.path);
    let mut found = errors.take();
    found.sort_by_cached_key(FieldError::to_string);
    found
}

/// A schema that gives its parts a structure, and those parts.
fn invariants(at: &At<'_>, level: Level) {
    let type_ = at.at("type");
    let items = at.at("items");
    if type_.text() == "array" && !items.is_set() {
        items.required("must be specified");
    }
    if items.value.is_object() {
        invariants(&items, Level::Item);
    }
    for (_, property) in at.at("properties").entries() {
        invariants(&property, Level::Field);
    }
    let additional = at.at("additionalProperties");
    if additional.is_set() && level == Level::Root {
        additional.forbidden("must not be used at the root");
    }
    if additional.value.is_object() {
        invariants(&additional, Level::Field);
    }
    extensions(at);
    joined(at, is_int_or_string(at.at("anyOf").value), is_int_or_string(&at.at("allOf").value[0]["anyOf"]));
    types(at, level);
    metadata(at, level);
}

/// `[{type: integer}, {type: string}]`: what x-kubernetes-int-or-string may say once more.
fn is_int_or_string(any_of: &Value) -> bool {
    *any_of == json!([{"type": "integer"}, {"type": "string"}])
}

fn extensions(at: &At<'_>) {
    let (preserves, embedded) = (at.at("x-kubernetes-preserve-unknown-fields"), at.at("x-kubernetes-embedded-resource"));
    if at.at("x-kubernetes-int-or-string").flag() {
        for other in [preserves, embedded] {
            if other.flag() {
                other.invalid("must be false if x-kubernetes-int-or-string is true");
            }
        }
    }
}

fn types(at: &At<'_>, level: Level) {
    let type_ = at.at("type");
    let embedded = at.at("x-kubernetes-embedded-resource").flag();
    let preserves = at.at("x-kubernetes-preserve-unknown-fields").flag();
    if embedded && type_.text() != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if type_.text().is_empty() { type_.required(detail) } else { type_.invalid(detail) }
    } else if type_.text().is_empty() && !at.at("x-kubernetes-int-or-string").flag() && !preserves {
        type_.required(match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        });
    }
    if embedded && at.at("additionalProperties").is_set() {
        at.at("additionalProperties").forbidden("must not be used if x-kubernetes-embedded-resource is set");
    }
    if level == Level::Root && type_.is_full() && type_.text() != "object" {
        type_.invalid("must be object at the root");
    }
    if embedded && !preserves && at.at("properties").is_empty() {
        at.at("properties")
            .required("must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
    }
}

/// Type and metadata of a whole object, its own or an embedded one's.
fn metadata(at: &At<'_>, level: Level) {
    let is_object = level == Level::Root || at.at("x-kubernetes-embedded-resource").flag();
    let properties = at.at("properties");
    let property = |key: &str| properties.entries().find(|(name, _)| *name == key).map(|(_, property)| property);
    for key in ["kind", "apiVersion"] {
        if let Some(property) = property(key).filter(|property| is_object && property.at("type").text() != "string") {
            property.at("type").invalid("must be string");
        }
    }
    let Some(metadata) = property("metadata") else { return };
    if is_object && metadata.at("type").text() != "object" {
        metadata.at("type").invalid("must be object");
    }
    if level == Level::Root {
        let only_names = metadata.at("properties").entries().all(|(key, _)| matches!(key, "name" | "generateName"));
        let only_known = metadata.map().is_none_or(|map| map.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "default")));
        if !only_names || !only_known {
            metadata.forbidden("must not specify anything other than name and generateName, but metadata is implicitly specified");
        }
    }
}

/// What a schema joins, and its expression.
fn joined(at: &At<'_>, skip_any_of: bool, skip_first_all_of: bool) {
    if !skip_any_of {
        at.at("anyOf").items().for_each(|inner| nested(&inner, false));
    }
    for (index, inner) in at.at("allOf").items().enumerate() {
        nested(&inner, skip_first_all_of && index == 0);
    }
    at.at("oneOf").items().for_each(|inner| nested(&inner, false));
    if at.at("not").is_set() {
        nested(&at.at("not"), false);
    }
    let pattern = at.at("pattern");
    if !pattern.text().is_empty()
        && let Err(error) = Pattern::new(pattern.text())
    {
        pattern.invalid(format!("must be a valid regular expression, but isn't: {error}"));
    }
}

/// A schema in a place where it may only restrict values.
fn nested(at: &At<'_>, skip_any_of: bool) {
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("externalDocs", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    joined(at, skip_any_of, false);
    if at.at("items").value.is_object() {
        nested(&at.at("items"), false);
    }
    for (_, property) in at.at("properties").entries() {
        nested(&property, false);
    }
    for (key, detail) in FORBIDDEN {
        let field = at.at(key);
        if field.is_full() && *field.value != Value::Bool(false) {
            field.forbidden(detail);
        }
    }
    for key in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if at.at(key).is_full() {
            at.at(key).forbidden("must be empty to be structural");
        }
    }
    if let Some((_, metadata)) = at.at("properties").entries().find(|(key, _)| *key == "metadata") {
        metadata.forbidden("must not be specified in a nested context");
    }
}

/// Every part that is restricted is also specified: `part` restricts what `structure`, at `path`, specifies.
fn completeness(part: &At<'_>, structure: &Value, path: &FieldPath) {
    for key in JOINTS {
        part.at(key).items().for_each(|inner| restricted(&inner, structure, path));
    }
    if part.at("not").is_set() {
        restricted(&part.at("not"), structure, path);
    }
}

fn restricted(part: &At<'_>, structure: &Value, path: &FieldPath) {
    completeness(part, structure, path);
    let missing = |part: &At<'_>, path: FieldPath| {
        part.errors.push(FieldError::required(&path, format!("because it is defined in {}", part.path)));
    };
    let items = part.at("items");
    if items.value.is_object() {
        let path = path.child("items");
        match structure.get("items").filter(|items| items.is_object()) {
            Some(inner) => restricted(&items, inner, &path),
            None => missing(&items, path),
        }
    }
    for (key, property) in part.at("properties").entries() {
        let path = path.child("properties").key(key);
        match structure.get("properties").and_then(|properties| properties.get(key)) {
            Some(inner) => restricted(&property, inner, &path),
            None => missing(&property, path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(schema: Value) -> Vec<String> {
        let errors = Errors::default();
        check(&At::new(&schema, FieldPath::new("s"), &errors)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_structural_schema_passes() {
        let schema = json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}},
            "spec": {"type": "object", "properties": {"a": {"type": "string"}, "l": {"type": "array", "items": {"type": "string"}}},
                "oneOf": [{"required": ["a"]}, {"properties": {"l": {"items": {"minLength": 1}}}}]},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "port2": {"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"minimum": 1}]},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }});
        assert_eq!(texts(schema), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_structural_is_named_in_upstreams_words() {
        let cases = [
            (json!({}), vec!["s.type: Required value: must not be empty at the root"]),
            (json!({"type": "string"}), vec![r#"s.type: Invalid value: "string": must be object at the root"#]),
            (
                json!({"type": "object", "additionalProperties": true}),
                vec!["s.additionalProperties: Forbidden: must not be used at the root"],
            ),
            (
                json!({"type": "object", "properties": {"a": {}, "b": {"type": "array"}, "c": {"type": "array", "items": {}}}}),
                vec![
                    "s.properties[a].type: Required value: must not be empty for specified object fields",
                    "s.properties[b].items: Required value: must be specified",
                    "s.properties[c].items.type: Required value: must not be empty for specified array items",
                ],
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
                vec![
                    r#"s.properties[a].pattern: Invalid value: "(": must be a valid regular expression, but isn't: error parsing regexp: unclosed group"#,
                ],
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                vec![
                    "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
                ],
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"b": {"type": "string", "default": 1}}}]}),
                vec![
                    "s.anyOf[0].properties[b].default: Forbidden: must be undefined to be structural",
                    "s.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
                    "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
                ],
            ),
            (
                json!({"type": "object", "properties": {"t": {"type": "object", "x-kubernetes-embedded-resource": true}}}),
                vec![
                    "s.properties[t].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
                ],
            ),
        ];
        for (schema, want) in cases {
            assert_eq!(texts(schema.clone()), want, "{schema}");
        }
    }
}
