//! Access to `metadata` of an object that is a [`Value`]. Reading never fails: what is missing or of a wrong type reads
//! as absent. Writing makes the maps it needs.

use serde_json::{Map, Value};

use crate::gvk::GroupVersionKind;

/// The `metadata` map, if there is one.
pub fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// The `metadata` map, made if it is missing or not a map.
///
/// An object that is no map at all becomes one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_at(object, "metadata")
}

/// The map at a top-level key (`spec`, `status`), made if it is missing or not a map.
pub fn map_at<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let child = as_map(object).entry(key).or_insert_with(|| Value::Object(Map::new()));
    as_map(child)
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("invariant: made a map above")
}

/// A value by its path of keys.
pub fn get<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(*key))
}

/// A string by its path of keys, empty if absent.
pub fn str_at<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    get(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// An integer by its path of keys.
pub fn i64_at(object: &Value, path: &[&str]) -> Option<i64> {
    get(object, path).and_then(Value::as_i64)
}

/// A list by its path of keys, empty if absent.
pub fn list_at<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    get(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn field<'a>(object: &'a Value, key: &str) -> &'a str {
    str_at(object, &["metadata", key])
}

fn set(object: &mut Value, key: &str, value: &str) {
    if value.is_empty() {
        remove(object, key);
    } else {
        metadata_mut(object).insert(key.to_owned(), Value::String(value.to_owned()));
    }
}

/// Removes a field of `metadata`.
pub fn remove(object: &mut Value, key: &str) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove(key);
    }
}

/// `apiVersion`, empty if absent.
pub fn api_version(object: &Value) -> &str {
    str_at(object, &["apiVersion"])
}

/// `kind`, empty if absent.
pub fn kind(object: &Value) -> &str {
    str_at(object, &["kind"])
}

/// The kind that the object says it has.
pub fn gvk(object: &Value) -> Option<GroupVersionKind> {
    GroupVersionKind::from_api_version(api_version(object), kind(object))
}

/// Writes `apiVersion` and `kind`.
pub fn set_gvk(object: &mut Value, gvk: &GroupVersionKind) {
    let map = as_map(object);
    map.insert("apiVersion".to_owned(), Value::String(gvk.api_version()));
    map.insert("kind".to_owned(), Value::String(gvk.kind.to_string()));
}

/// `metadata.name`, empty if absent.
pub fn name(object: &Value) -> &str {
    field(object, "name")
}

/// Sets or (empty) removes `metadata.name`.
pub fn set_name(object: &mut Value, name: &str) {
    set(object, "name", name);
}

/// `metadata.generateName`, empty if absent.
pub fn generate_name(object: &Value) -> &str {
    field(object, "generateName")
}

/// `metadata.namespace`, empty if absent.
pub fn namespace(object: &Value) -> &str {
    field(object, "namespace")
}

/// Sets or (empty) removes `metadata.namespace`.
pub fn set_namespace(object: &mut Value, namespace: &str) {
    set(object, "namespace", namespace);
}

/// `metadata.uid`, empty if absent.
pub fn uid(object: &Value) -> &str {
    field(object, "uid")
}

/// Sets or (empty) removes `metadata.uid`.
pub fn set_uid(object: &mut Value, uid: &str) {
    set(object, "uid", uid);
}

/// `metadata.resourceVersion`, empty if absent.
pub fn resource_version(object: &Value) -> &str {
    field(object, "resourceVersion")
}

/// Sets or (empty) removes `metadata.resourceVersion`.
pub fn set_resource_version(object: &mut Value, resource_version: &str) {
    set(object, "resourceVersion", resource_version);
}

/// `metadata.generation`, 0 if absent.
pub fn generation(object: &Value) -> i64 {
    i64_at(object, &["metadata", "generation"]).unwrap_or_default()
}

/// Sets or (0) removes `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    if generation == 0 {
        remove(object, "generation");
    } else {
        metadata_mut(object).insert("generation".to_owned(), generation.into());
    }
}

/// `metadata.creationTimestamp` as written, empty if absent.
pub fn creation_timestamp(object: &Value) -> &str {
    field(object, "creationTimestamp")
}

/// Sets or (empty) removes `metadata.creationTimestamp`.
pub fn set_creation_timestamp(object: &mut Value, timestamp: &str) {
    set(object, "creationTimestamp", timestamp);
}

/// `metadata.deletionTimestamp` as written, None while the object isn't being deleted.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    Some(field(object, "deletionTimestamp")).filter(|t| !t.is_empty())
}

/// Sets or (empty) removes `metadata.deletionTimestamp`.
pub fn set_deletion_timestamp(object: &mut Value, timestamp: &str) {
    set(object, "deletionTimestamp", timestamp);
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    i64_at(object, &["metadata", "deletionGracePeriodSeconds"])
}

/// Sets or (None) removes `metadata.deletionGracePeriodSeconds`.
pub fn set_deletion_grace_period_seconds(object: &mut Value, seconds: Option<i64>) {
    match seconds {
        Some(seconds) => {
            metadata_mut(object).insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
        }
        None => remove(object, "deletionGracePeriodSeconds"),
    }
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("labels")?.as_object()
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

/// Sets one label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    let labels = metadata_mut(object).entry("labels").or_insert_with(|| Value::Object(Map::new()));
    as_map(labels).insert(key.to_owned(), Value::String(value.to_owned()));
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    metadata(object)?.get("annotations")?.as_object()
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

/// Sets one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    let annotations = metadata_mut(object).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    as_map(annotations).insert(key.to_owned(), Value::String(value.to_owned()));
}

/// `metadata.ownerReferences`, empty if absent.
pub fn owner_references(object: &Value) -> &[Value] {
    list_at(object, &["metadata", "ownerReferences"])
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

/// `metadata.finalizers`, empty if absent.
pub fn finalizers(object: &Value) -> Vec<&str> {
    list_at(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
}

/// Replaces `metadata.finalizers`; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    if finalizers.is_empty() {
        remove(object, "finalizers");
    } else {
        metadata_mut(object).insert("finalizers".to_owned(), finalizers.iter().copied().map(Value::from).collect());
    }
}
