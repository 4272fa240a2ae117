//! Merging a partial object into an object by its schema: what a mutating admission policy's `ApplyConfiguration` does.
//!
//! Maps merge field by field; lists merge by their keys or as sets where the schema says so. Atomic lists and maps are refused, because
//! everything that a partial object omits from them would be lost. Nothing is removed, and no ownership is recorded.
//!
//! Answers to upstream's `ApplyStructuredMergeDiff` (`apiserver/pkg/admission/plugin/policy/mutating/patch`) and to
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>.

use serde_json::{Map, Value};

use crate::schema::{Field, Kind, ListType, TypeId};

/// Keys of lists that have a default.
const KEY_DEFAULTS: [(&str, &str); 1] = [("protocol", "TCP")];

/// Merges `configuration` into `original`, both of type `ty`; None: an object without types.
///
/// # Errors
/// Where the configuration contradicts the schema, and what of it is atomic.
pub fn merge_configuration(ty: Option<TypeId>, original: &mut Value, configuration: &Value) -> Result<(), String> {
    let mut atomics = Vec::new();
    check(configuration, Place { ty, field: None }, "", &mut atomics)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    if !atomics.is_empty() {
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", atomics.join(", ")));
    }
    merge(original, configuration, Place { ty, field: None });
    Ok(())
}

/// A place in the schema. Without a type everything is allowed, maps merge and lists are atomic.
#[derive(Clone, Copy)]
struct Place {
    ty: Option<TypeId>,
    /// The field whose value it is: list types are said there.
    field: Option<Field>,
}

// === impl Place ===

impl Place {
    fn kind(self) -> Kind {
        self.ty.map_or(Kind::Any, TypeId::kind)
    }

    fn is_atomic_map(self) -> bool {
        self.ty.is_some_and(TypeId::is_atomic) || self.field.is_some_and(Field::is_atomic_map)
    }

    fn list_type(self) -> ListType {
        self.field.and_then(Field::list_type).unwrap_or(ListType::Atomic)
    }

    /// The place of a field; None: the schema has none of this name.
    fn at(self, name: &str) -> Option<Place> {
        match self.kind() {
            Kind::Struct => self.ty.and_then(|ty| ty.field(name)).map(|field| Place { ty: Some(field.type_id()), field: Some(field) }),
            Kind::Map(element) => Some(Place { ty: Some(element), field: None }),
            _ => Some(Place { ty: None, field: None }),
        }
    }

    fn element(self) -> Place {
        Place { ty: self.ty.and_then(TypeId::element), field: None }
    }
}

fn check(value: &Value, place: Place, path: &str, atomics: &mut Vec<String>) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            if !matches!(place.kind(), Kind::Struct | Kind::Map(_) | Kind::Any | Kind::AnyObject) {
                return Err(format!("{path}: expected {}, got map", word(place)));
            }
            if place.is_atomic_map() {
                atomics.push(path.to_owned());
            }
            for (name, value) in map {
                let path = format!("{path}.{name}");
                let place = place.at(name).ok_or_else(|| format!("{path}: field not declared in schema"))?;
                check(value, place, &path, atomics)?;
            }
        }
        Value::Array(items) => {
            if !matches!(place.kind(), Kind::List(_) | Kind::Any) {
                return Err(format!("{path}: expected {}, got list", word(place)));
            }
            let list_type = place.list_type();
            if list_type == ListType::Atomic {
                atomics.push(path.to_owned());
            }
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if list_type == ListType::Map {
                    keys_of(item, place)
                        .ok_or_else(|| format!("{path}: associative list with keys has an element that omits key field"))?;
                }
                check(item, place.element(), &path, atomics)?;
            }
        }
        Value::Null => {}
        _ if matches!(place.kind(), Kind::Struct | Kind::Map(_) | Kind::List(_) | Kind::AnyObject) => {
            return Err(format!("{path}: expected {}, got {value}", word(place)));
        }
        _ => {}
    }
    Ok(())
}

fn word(place: Place) -> &'static str {
    match place.kind() {
        Kind::List(_) => "list",
        Kind::Struct | Kind::Map(_) | Kind::AnyObject => "map",
        _ => "scalar",
    }
}

fn merge(original: &mut Value, configuration: &Value, place: Place) {
    match (original, configuration) {
        (Value::Object(original), Value::Object(changes)) => merge_map(original, changes, place),
        (Value::Array(original), Value::Array(changes)) if place.list_type() == ListType::Map => {
            for change in changes {
                let keys = keys_of(change, place);
                match original.iter_mut().find(|item| keys_of(item, place) == keys) {
                    Some(item) => merge(item, change, place.element()),
                    None => original.push(change.clone()),
                }
            }
        }
        (Value::Array(original), Value::Array(changes)) if place.list_type() == ListType::Set => {
            for change in changes {
                if !original.contains(change) {
                    original.push(change.clone());
                }
            }
        }
        (original, changes) => *original = changes.clone(),
    }
}

fn merge_map(original: &mut Map<String, Value>, changes: &Map<String, Value>, place: Place) {
    for (name, change) in changes {
        let place = place.at(name).unwrap_or(Place { ty: None, field: None });
        match original.get_mut(name) {
            Some(value) => merge(value, change, place),
            None => {
                original.insert(name.clone(), change.clone());
            }
        }
    }
}

/// The values of the keys of an item; None: one is missing that has no default.
fn keys_of(item: &Value, place: Place) -> Option<Vec<Value>> {
    let value = |key: &str| {
        let default = || KEY_DEFAULTS.iter().find(|(name, _)| *name == key).map(|(_, value)| Value::from(*value));
        item.get(key).filter(|value| !value.is_null()).cloned().or_else(default)
    };
    place.field.into_iter().flat_map(Field::list_map_keys).map(value).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::type_of;

    fn merged(mut original: Value, configuration: &Value) -> Result<Value, String> {
        merge_configuration(type_of("apps", "v1", "Deployment"), &mut original, configuration).map(|()| original)
    }

    fn deployment() -> Value {
        json!({"metadata": {"name": "d", "labels": {"a": "1"}, "finalizers": ["x/y"]}, "spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "one", "image": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}})
    }

    #[test]
    fn maps_and_keyed_lists_merge() {
        let configuration = json!({"metadata": {"labels": {"b": "2"}, "annotations": {"c": "3"}, "finalizers": ["x/y", "x/z"]},
            "spec": {"replicas": 5, "template": {"spec": {"containers": [
                {"name": "one", "env": [{"name": "E", "value": "v"}], "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": "two", "image": "b"}]}}}});
        let merged = merged(deployment(), &configuration).unwrap();
        assert_eq!(
            merged["metadata"],
            json!({"name": "d", "labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}, "finalizers": ["x/y", "x/z"]})
        );
        assert_eq!(merged["spec"]["replicas"], 5);
        let containers = &merged["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            containers[0],
            json!({"name": "one", "image": "a", "env": [{"name": "E", "value": "v"}],
                   "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]})
        );
        assert_eq!(containers[1], json!({"name": "two", "image": "b"}));
    }

    #[test]
    fn what_is_atomic_or_unknown_is_refused() {
        for (configuration, part) in [
            (
                json!({"spec": {"nothing": 1}}),
                "failed to convert patch object to typed object: .spec.nothing: field not declared in schema",
            ),
            (json!({"spec": {"replicas": {"a": 1}}}), ".spec.replicas: expected scalar, got map"),
            (json!({"spec": {"template": 1}}), ".spec.template: expected map, got 1"),
            (json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}), "may not mutate atomic arrays, maps or structs: .spec.selector"),
            (json!({"spec": {"template": {"spec": {"tolerations": []}}}}), "structs: .spec.template.spec.tolerations"),
            (json!({"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}}), "omits key field"),
        ] {
            let error = merged(deployment(), &configuration).unwrap_err();
            assert!(error.contains(part), "{configuration}: {error}");
        }
    }

    #[test]
    fn an_object_without_types_merges_its_maps() {
        let mut original = json!({"spec": {"a": 1, "list": [1]}});
        merge_configuration(None, &mut original, &json!({"spec": {"b": {"c": 2}}})).unwrap();
        assert_eq!(original, json!({"spec": {"a": 1, "b": {"c": 2}, "list": [1]}}));
        assert!(merge_configuration(None, &mut original, &json!({"spec": {"list": [2]}})).unwrap_err().contains("atomic"));
    }
}
