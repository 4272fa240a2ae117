//! Schemas that were given at run time, in the shape in which clients can read them.
//!
//! kubectl refuses fields that a v2 schema does not name, and cannot read everything that v3 says: unknown fields, nulls and
//! alternatives are left out of v2 in the ways that upstream found.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/openapi/builder` and `openapi/v2/conversion.go`.

use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use super::target::Used;
use crate::resource::Published;
use crate::resources::Resource;
use crate::schema::definition;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const API_VERSION: &str = "APIVersion defines which version of which group this object is written in.";
const KIND: &str = "Kind names the type of this object, in CamelCase.";
const METADATA: &str = "Standard object's metadata: what every object has.";

/// The name of a kind's schema: `com.example.v1.Foo` for `Foo` of `example.com/v1`.
pub(super) fn name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}

/// Adds the schemas of a kind and of its list.
pub(super) fn add(resource: &Resource, version: &str, published: &Published, dialect: Dialect, used: &mut Used) {
    let own = name(&resource.group, version, &resource.kind);
    let list = name(&resource.group, version, &resource.list_kind);
    let gvk = |kind: &str| json!([{"group": resource.group, "version": version, "kind": kind}]);
    let mut schema = object(&published.schema, dialect);
    schema["x-kubernetes-group-version-kind"] = gvk(&resource.kind);
    let items = json!({"$ref": dialect.reference(&own)});
    let mut list_schema = json!({
        "type": "object", "required": ["items"],
        "description": format!("{} is a list of {}.", resource.list_kind, resource.kind),
        "properties": {"items": {"type": "array", "items": items, "description": format!("The {} of the list.", resource.plural)}},
        "x-kubernetes-group-version-kind": gvk(&resource.list_kind),
    });
    type_and_metadata(&mut list_schema, dialect, LIST_META);
    used.named.insert(own, schema);
    used.named.insert(list, list_schema);
    used.types.extend([OBJECT_META, LIST_META].into_iter().filter_map(definition));
}

fn object(schema: &[u8], dialect: Dialect) -> Value {
    let empty = || json!({"type": "object"});
    let Ok(mut schema @ Value::Object(_)) = serde_json::from_slice::<Value>(schema) else { return empty() };
    if dialect == Dialect::V2 && schema["x-kubernetes-preserve-unknown-fields"] == true {
        // The schema stays empty, without even type and metadata: kubectl refuses unknown fields as soon as one property is declared.
        return empty();
    }
    shape(&mut schema, dialect);
    type_and_metadata(&mut schema, dialect, OBJECT_META);
    schema
}

fn type_and_metadata(schema: &mut Value, dialect: Dialect, metadata: &str) {
    let Some(map) = schema.as_object_mut() else { return };
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    let reference = json!({"$ref": dialect.reference(metadata)});
    properties["metadata"] = match dialect {
        Dialect::V2 => json!({"description": METADATA, "$ref": reference["$ref"]}),
        Dialect::V3 => json!({"description": METADATA, "allOf": [reference]}),
    };
}

/// Brings a schema and all below it into the shape that clients read.
fn shape(schema: &mut Value, dialect: Dialect) {
    let Some(map) = schema.as_object_mut() else { return };
    let is = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&Value::Bool(true));
    if is(map, "x-kubernetes-int-or-string") {
        int_or_string(map);
    }
    if dialect == Dialect::V2 {
        simplify(map);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            shape(inner, dialect);
        }
    }
    map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, inner)| shape(inner, dialect));
    let preserves = is(map, "x-kubernetes-preserve-unknown-fields") && dialect == Dialect::V2;
    if is(map, "x-kubernetes-embedded-resource") && !preserves {
        let required = map.entry("required").or_insert_with(|| json!([]));
        if let Some(list) = required.as_array_mut() {
            for key in ["kind", "apiVersion"] {
                if !list.iter().any(|known| known == key) {
                    list.push(Value::from(key));
                }
            }
        }
        type_and_metadata(schema, dialect, OBJECT_META);
    }
}

/// Says in OpenAPI's words what the extension says.
fn int_or_string(map: &mut Map<String, Value>) {
    let both = json!([{"type": "integer"}, {"type": "string"}]);
    if map.get("anyOf") == Some(&both) || map.get("allOf").is_some_and(|all| all[0]["anyOf"] == both) {
        return;
    }
    if map.contains_key("anyOf") {
        let all = map.entry("allOf").or_insert_with(|| json!([]));
        if let Some(list) = all.as_array_mut() {
            list.insert(0, json!({"anyOf": both}));
        }
    } else {
        map.insert("anyOf".to_owned(), both);
    }
}

/// Takes out what kubectl cannot read in v2.
fn simplify(map: &mut Map<String, Value>) {
    for key in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(key);
    }
    if map.remove("nullable") == Some(Value::Bool(true)) {
        for key in ["type", "items", "properties"] {
            map.remove(key);
        }
    }
    let preserves = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if preserves {
        map.remove("items");
        map.remove("properties");
    }
    let untyped = match map.get("type").and_then(Value::as_str) {
        Some("array") => !map.contains_key("items"),
        Some("object") => preserves,
        _ => false,
    };
    if untyped {
        map.remove("type");
    }
    let is_nullable = |schema: &Value| schema["nullable"] == true;
    let nullable: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_nullable(property))
        .map(|(key, _)| key.clone())
        .collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|key| !nullable.iter().any(|name| key == name));
        if required.is_empty() {
            map.remove("required");
        }
    }
    if map.get("additionalProperties").is_some_and(is_nullable) {
        map.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(mut schema: Value, dialect: Dialect) -> Value {
        shape(&mut schema, dialect);
        schema
    }

    #[test]
    fn v2_leaves_out_what_kubectl_cannot_read() {
        let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "nullable": true, "description": "A"}, "b": {"type": "string", "enum": ["x"]},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"d": {"type": "string"}}, "description": "C"},
            "e": {"x-kubernetes-int-or-string": true}, "f": {"type": "object", "oneOf": [{"required": ["g"]}], "properties": {"g": {"type": "string"}}}}});
        assert_eq!(
            shaped(schema.clone(), Dialect::V2),
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {"description": "A"}, "b": {"type": "string", "enum": ["x"]},
                "c": {"x-kubernetes-preserve-unknown-fields": true, "description": "C"},
                "e": {"x-kubernetes-int-or-string": true}, "f": {"type": "object", "properties": {"g": {"type": "string"}}}}})
        );
        let v3 = shaped(schema, Dialect::V3);
        assert_eq!(v3["properties"]["e"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
        assert_eq!(v3["properties"]["a"]["nullable"], true);
    }

    #[test]
    fn what_preserves_everything_at_its_root_names_nothing_in_v2() {
        let schema = br#"{"type":"object","description":"x","x-kubernetes-preserve-unknown-fields":true}"#;
        assert_eq!(object(schema, Dialect::V2), json!({"type": "object"}));
        assert!(object(schema, Dialect::V3)["properties"]["metadata"]["allOf"].is_array());
        assert_eq!(name("stable.example.com", "v1", "Foo"), "com.example.stable.v1.Foo");
    }
}
