//! Schemas of the types of the tables.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use crate::schema::{Field, Kind, ListType, TypeId, roots};

/// The types and everything that they refer to, sorted.
pub(super) fn closure(types: BTreeSet<TypeId>) -> BTreeSet<TypeId> {
    let mut todo: Vec<TypeId> = types.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(ty) = todo.pop() {
        if ty.name().is_empty() {
            todo.extend(ty.element());
        } else if seen.insert(ty) {
            todo.extend(ty.fields().map(Field::type_id));
        }
    }
    seen
}

/// The schema of a named type.
pub(super) fn schema(ty: TypeId, dialect: Dialect) -> Value {
    let mut out = match ty.kind() {
        Kind::Struct => object(ty, dialect),
        _ => scalar(ty.kind(), dialect),
    };
    if ty.is_atomic() {
        out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    let kinds: Vec<Value> = roots()
        .filter(|(.., root)| *root == ty)
        .map(|(group, version, kind, _)| json!({"group": group, "version": version, "kind": kind}))
        .collect();
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
    }
    Value::Object(out)
}

fn object(ty: TypeId, dialect: Dialect) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("type".to_owned(), "object".into());
    let properties: Map<String, Value> = ty.fields().map(|f| (f.name().to_owned(), property(ty, f, dialect))).collect();
    if !properties.is_empty() {
        out.insert("properties".to_owned(), Value::Object(properties));
    }
    let required: Vec<Value> = ty.fields().filter(|f| f.is_required()).map(|f| f.name().into()).collect();
    if !required.is_empty() {
        out.insert("required".to_owned(), required.into());
    }
    out
}

/// What the fields of every object's metadata mean: the one type that readers of any kind look up.
fn describe(owner: TypeId, field: Field) -> Option<&'static str> {
    if owner.name() != "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" {
        return None;
    }
    Some(match field.name() {
        "annotations" => "Annotations are notes of tools and people about the object; nothing is selected by them.",
        "creationTimestamp" => "CreationTimestamp is a timestamp: when the server made the object.",
        "deletionGracePeriodSeconds" => "How long the object may take to end after it was marked as being deleted.",
        "deletionTimestamp" => "When the object was marked as being deleted, or will have ended.",
        "finalizers" => "Names of what has to be done before the object can go; it stays until the list is empty.",
        "generateName" => "The beginning of a name that the server completes, if no name is given.",
        "generation" => "Counts the changes of what is wanted.",
        "labels" => "Labels put the object into groups that selectors name.",
        "managedFields" => "Who set which field.",
        "name" => "The name, unique among objects of the kind in the namespace. It cannot change.",
        "namespace" => "The namespace that the name is unique in.",
        "ownerReferences" => "Objects that this one depends on: it is deleted when all of them are gone.",
        "resourceVersion" => "Changes with every write; two reads with the same one saw the same object.",
        "uid" => "Tells the object from others that had or will have its name.",
        _ => return None,
    })
}

fn property(owner: TypeId, field: Field, dialect: Dialect) -> Value {
    let mut out = reference(field.type_id(), dialect);
    let mut extend = |key: &str, value: Value| out.insert(format!("x-kubernetes-{key}"), value);
    match field.list_type() {
        Some(ListType::Atomic) => extend("list-type", "atomic".into()),
        Some(ListType::Set) => extend("list-type", "set".into()),
        Some(ListType::Map) => {
            extend("list-map-keys", field.list_map_keys().collect());
            extend("list-type", "map".into())
        }
        None => None,
    };
    match (field.patch_merges(), field.patch_retains_keys()) {
        (true, true) => extend("patch-strategy", "merge,retainKeys".into()),
        (true, false) => extend("patch-strategy", "merge".into()),
        (false, true) => extend("patch-strategy", "retainKeys".into()),
        (false, false) => None,
    };
    if let Some(key) = field.merge_key() {
        extend("patch-merge-key", key.into());
    }
    if field.is_atomic_map() {
        extend("map-type", "atomic".into());
    }
    if let Some(text) = describe(owner, field) {
        out.insert("description".to_owned(), text.into());
    }
    Value::Object(out)
}

/// A type where it is used: named ones by reference, others in place.
pub(super) fn reference(ty: TypeId, dialect: Dialect) -> Map<String, Value> {
    if !ty.name().is_empty() {
        return Map::from_iter([("$ref".to_owned(), dialect.reference(ty.name()).into())]);
    }
    match ty.kind() {
        Kind::List(element) => {
            Map::from_iter([("type".to_owned(), "array".into()), ("items".to_owned(), Value::Object(reference(element, dialect)))])
        }
        Kind::Map(element) => Map::from_iter([
            ("type".to_owned(), "object".into()),
            ("additionalProperties".to_owned(), Value::Object(reference(element, dialect))),
        ]),
        kind => scalar(kind, dialect),
    }
}

fn scalar(kind: Kind, dialect: Dialect) -> Map<String, Value> {
    let value = match (kind, dialect) {
        (Kind::String, _) => json!({"type": "string"}),
        (Kind::Int32, _) => json!({"type": "integer", "format": "int32"}),
        (Kind::Int64, _) => json!({"type": "integer", "format": "int64"}),
        (Kind::Double, _) => json!({"type": "number", "format": "double"}),
        (Kind::Bool, _) => json!({"type": "boolean"}),
        (Kind::Bytes, _) => json!({"type": "string", "format": "byte"}),
        (Kind::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Kind::IntOrString, Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Kind::Quantity, Dialect::V2) => json!({"type": "string"}),
        (Kind::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (Kind::Time | Kind::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Kind::Any, _) => json!({}),
        _ => json!({"type": "object"}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
