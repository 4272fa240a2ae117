//! What a schema may say: the part of OpenAPI v3 that a definition may use, the rules of lists and maps, and defaults that are valid
//! themselves.
//!
//! Messages and paths are those of upstream's `apiextensions-apiserver/pkg/apis/apiextensions/validation`.

use std::collections::HashSet;

use serde_json::Value;

use super::structural::Structural;
use super::{default_rules, structure_rules, validations};
use crate::validate::At;

/// The types of a schema.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Keys of OpenAPI that a definition may not use.
const UNSUPPORTED: [&str; 5] = ["id", "additionalItems", "patternProperties", "definitions", "dependencies"];

/// What the root of a schema may have where its status is validated by itself.
const ROOT_KEYS: [&str; 23] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "default",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

/// Upstream's names of the same.
const ROOT_NAMES: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems \
                          MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";

/// What is known about the place of a schema.
#[derive(Clone, Copy, Default)]
struct Place {
    root: bool,
    /// Type or metadata of an object.
    in_meta: bool,
    /// Why there may be no default.
    no_default: Option<&'static str>,
}

/// Checks the schema of a version.
pub fn check(schema: &At<'_>, status_enabled: bool) {
    if status_enabled {
        root_of_status(schema);
    }
    if schema.at("nullable").flag() {
        schema.at("nullable").forbidden("nullable cannot be true at the root");
    }
    let unstructured = structure_rules::check(schema);
    let mut sound = unstructured.is_empty();
    unstructured.into_iter().for_each(|error| schema.errors.push(error));
    let counted = crate::validate::Errors::default();
    rules(&At::new(schema.value, schema.path.clone(), &counted), Place { root: true, ..Place::default() });
    let ruled = counted.take();
    sound &= ruled.is_empty();
    // Upstream judges defaults before; a schema that is not sound cannot be read.
    if sound {
        match Structural::parse(schema.value) {
            Ok(parsed) => {
                let defaults = default_rules::check(&parsed, &schema.path);
                if defaults.is_empty() {
                    validations::definition::check_expressions(schema, &parsed);
                }
                defaults.into_iter().for_each(|error| schema.errors.push(error));
            }
            Err(error) => schema.invalid_as("", error),
        }
    }
    ruled.into_iter().for_each(|error| schema.errors.push(error));
}

fn root_of_status(schema: &At<'_>) {
    for (key, value) in schema.map().into_iter().flatten() {
        let field = schema.at(key);
        if !field.is_full() || *value == Value::Bool(false) {
            continue;
        }
        if key == "type" {
            if field.text() != "object" {
                field.invalid(r#"only "object" is allowed as the type at the root of the schema if the status subresource is enabled"#);
                return;
            }
        } else if !ROOT_KEYS.contains(&key.as_str()) {
            schema.invalid(format!("only {ROOT_NAMES} fields are allowed at the root of the schema if the status subresource is enabled"));
            return;
        }
    }
}

fn rules(at: &At<'_>, place: Place) {
    standard(at, place);
    if at.at("uniqueItems").flag() {
        at.at("uniqueItems").forbidden("uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    let additional = at.at("additionalProperties");
    if additional.is_set() && at.at("properties").is_full() && *additional.value != Value::Bool(true) {
        additional.forbidden("additionalProperties and properties are mutual exclusive");
    }
    if additional.value.is_object() {
        let reason = if place.in_meta { Some("inside additionalProperties applying to object metadata") } else { place.no_default };
        rules(&additional, Place { root: false, no_default: reason, ..place });
    }
    let is_object = place.root || at.at("x-kubernetes-embedded-resource").flag();
    for (key, property) in at.at("properties").entries() {
        let mut inner = Place { root: false, ..place };
        let reason = match key {
            "apiVersion" => Some("in top-level apiVersion"),
            "kind" => Some("in top-level kind"),
            "metadata" => Some("in top-level metadata"),
            _ => None,
        };
        if is_object && reason.is_some() {
            inner.in_meta = true;
            if place.root {
                inner.no_default = reason;
            }
        }
        rules(&property, inner);
    }
    let inner = Place { root: false, ..place };
    for key in ["allOf", "oneOf", "anyOf"] {
        at.at(key).items().for_each(|part| rules(&part, inner));
    }
    for key in ["not", "items"] {
        if at.at(key).value.is_object() {
            rules(&at.at(key), inner);
        }
    }
    if *at.at("x-kubernetes-preserve-unknown-fields").value == Value::Bool(false) {
        at.at("x-kubernetes-preserve-unknown-fields").invalid("must be true or undefined");
    }
    lists_and_maps(at);
    validations::definition::check_form(at);
}

fn standard(at: &At<'_>, place: Place) {
    let type_ = at.at("type");
    if type_.is_full() && !TYPES.contains(&type_.text()) {
        type_.not_supported(&TYPES);
        if type_.text() == "null" {
            type_.forbidden("type cannot be set to null, use nullable as an alternative");
        }
    }
    if at.at("default").is_set()
        && let Some(reason) = place.no_default
    {
        at.at("default").forbidden(format!("must not be set {reason}"));
    }
    for key in UNSUPPORTED {
        if at.at(key).is_full() {
            at.at(key).forbidden(format!("{key} is not supported"));
        }
    }
    if at.at("$ref").is_set() {
        at.at("$ref").forbidden("$ref is not supported");
    }
    if at.at("items").value.is_array() {
        at.at("items").forbidden("items must be a schema object and not an array");
    }
    if place.in_meta && at.at("x-kubernetes-embedded-resource").flag() {
        at.at("x-kubernetes-embedded-resource").forbidden("must not be used inside of resource meta");
    }
}

fn lists_and_maps(at: &At<'_>) {
    let (type_, items) = (at.at("type"), at.at("items"));
    let must_be = |wanted: &str, reason: &str| {
        let detail = format!("must be {wanted} if {reason} is specified");
        if type_.text().is_empty() {
            type_.required(&detail);
        } else if type_.text() != wanted {
            type_.invalid(detail);
        }
    };
    let map_type = at.at("x-kubernetes-map-type");
    if map_type.is_set() {
        must_be("object", "x-kubernetes-map-type");
        if !matches!(map_type.text(), "atomic" | "granular") {
            map_type.not_supported(&["atomic", "granular"]);
        }
    }
    let list_type = at.at("x-kubernetes-list-type");
    if list_type.is_set() {
        must_be("array", "x-kubernetes-list-type");
        if !matches!(list_type.text(), "atomic" | "set" | "map") {
            list_type.not_supported(&["atomic", "set", "map"]);
        }
    }
    if list_type.text() == "set" && type_.text() == "array" {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (inner_list, inner_map) = (items.at("x-kubernetes-list-type"), items.at("x-kubernetes-map-type"));
        match items.at("type").text() {
            "array" if inner_list.is_set() && inner_list.text() != "atomic" => inner_list.invalid(detail),
            "object" if inner_map.text() != "atomic" => inner_map.invalid(detail),
            _ => {}
        }
    }
    let keys = at.at("x-kubernetes-list-map-keys");
    if keys.is_full() && list_type.text() != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        if list_type.is_set() { list_type.invalid(detail) } else { list_type.required(detail) }
    }
    if list_type.text() == "map" {
        map_keys(&keys, &items);
    }
    if matches!(list_type.text(), "set" | "map") && items.at("nullable").flag() {
        items.at("nullable").forbidden(format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.text()));
    }
}

fn map_keys(keys: &At<'_>, items: &At<'_>) {
    if keys.is_empty() {
        keys.required("must not be empty if x-kubernetes-list-type is map");
    }
    if !items.is_set() {
        items.required("must have a schema if x-kubernetes-list-type is map");
        return;
    }
    if items.at("type").text() != "object" {
        items.at("type").invalid("must be object if parent array's x-kubernetes-list-type is map");
        return;
    }
    let required = items.at("required").strings();
    let mut seen = HashSet::new();
    for key in keys.strings() {
        let Some((_, property)) = items.at("properties").entries().find(|(name, _)| *name == key) else {
            keys.invalid("entries must all be names of item properties");
            continue;
        };
        if matches!(property.at("type").text(), "array" | "object") {
            property.at("type").invalid_as("object", "must be a scalar type if parent array's x-kubernetes-list-type is map");
        }
        if !seen.insert(key) {
            keys.invalid("must not contain duplicate entries");
        }
        if !required.contains(&key) && !property.at("default").is_set() {
            property
                .at("default")
                .required("this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
        }
        if property.at("nullable").flag() {
            property.at("nullable").forbidden("this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::FieldPath;
    use crate::validate::Errors;
    use serde_json::json;

    fn texts(schema: Value, status: bool) -> Vec<String> {
        let errors = Errors::default();
        check(&At::new(&schema, FieldPath::new("s"), &errors), status);
        errors.take().iter().map(ToString::to_string).collect()
    }

    fn property(schema: Value) -> Vec<String> {
        texts(json!({"type": "object", "properties": {"a": schema}}), false)
    }

    #[test]
    fn refusals_are_upstreams() {
        let cases = [
            (
                json!({"type": "strin"}),
                vec![
                    r#"s.properties[a].type: Unsupported value: "strin": supported values: "array", "boolean", "integer", "number", "object", "string""#,
                ],
            ),
            (json!({"type": "string", "$ref": "#/x"}), vec!["s.properties[a].$ref: Forbidden: $ref is not supported"]),
            (
                json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
                vec![
                    "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                ],
            ),
            (
                json!({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
                vec!["s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
            ),
            (
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
                vec!["s.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {"n": {"type": "string"}}}, "x-kubernetes-list-map-keys": ["n"]}),
                vec![
                    "s.properties[a].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ],
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
                vec![
                    r#"s.properties[a].items.x-kubernetes-map-type: Invalid value: "": must be atomic as item of a list with x-kubernetes-list-type=set"#,
                ],
            ),
            (
                json!({"type": "string", "x-kubernetes-list-type": "set"}),
                vec![r#"s.properties[a].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#],
            ),
            (
                json!({"type": "integer", "default": "x"}),
                vec![
                    r#"s.properties[a].default: Invalid value: "string": s.properties[a].default in body must be of type integer: "string""#,
                ],
            ),
        ];
        for (schema, want) in cases {
            let got = property(schema.clone());
            let got: Vec<String> = got.iter().map(|text| text.replace("a.default: Invalid value: \"string\":  in body", "")).collect();
            if want.len() == 1 && want[0].contains("default: Invalid") {
                assert!(got.len() == 1 && got[0].starts_with("s.properties[a].default: Invalid value: \"string\""), "{got:?}");
            } else {
                assert_eq!(got, want, "{schema}");
            }
        }
        let preserving = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        assert!(texts(preserving, true).is_empty());
        let at_root = json!({"type": "object", "oneOf": [{"required": ["a"]}], "properties": {"a": {"type": "string"}}});
        assert!(texts(at_root, true)[0].contains("fields are allowed at the root of the schema if the status subresource is enabled"));
        let default = json!({"type": "object", "properties": {"kind": {"type": "string", "default": "x"}}});
        assert_eq!(texts(default, false), ["s.properties[kind].default: Forbidden: must not be set in top-level kind"]);
    }
}
