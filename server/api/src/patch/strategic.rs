//! Strategic merge patch.
//!
//! Answers to <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.
//! A patch is a partial object. Maps merge key by key and null removes. Lists replace, except those whose schema says
//! `patchStrategy: merge`: lists of objects merge by their merge key, lists of scalars are united. Directives steer it:
//!
//! ```text
//! {"$patch": "replace", ...}            the map (or, as an item, the whole list) is replaced by the rest
//! {"$patch": "delete"[, key: value]}    the map (or the item with that key) is removed
//! {"$patch": "merge", ...}              the default, said aloud
//! "$retainKeys": ["a", "b"]             keys of this map that are not listed are removed first
//! "$deleteFromPrimitiveList/f": [x]     removes scalars from the list f
//! "$setElementOrder/f": [...]           the order of the list f afterwards; the rest keeps its place between them
//! ```

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::error::{PatchError, not_a_map};
use crate::schema::{Field, Kind, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Applies a strategic merge patch to an object of type `ty`. On an error the original is of no more use.
pub fn strategic_merge_patch(ty: TypeId, original: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let mut patch = patch.clone();
    whole_numbers(&mut patch);
    let Value::Object(patch_map) = &patch else {
        return Err(not_a_map("", &patch));
    };
    let map = match std::mem::take(original) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    *original = Value::Object(merge_map(map, patch_map, Some(ty))?);
    Ok(())
}

/// Upstream decodes this patch into untyped numbers, so a whole number may be spelled with a fraction or an exponent.
fn whole_numbers(value: &mut Value) {
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < EXACT_BELOW) {
                #[allow(clippy::cast_possible_truncation)]
                let whole = float as i64;
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// How a list field is patched.
#[derive(Clone, Copy, Default)]
struct ListRule {
    merges: bool,
    merge_key: Option<&'static str>,
    element: Option<TypeId>,
}

impl ListRule {
    fn of(field: Option<Field>) -> Self {
        match field {
            Some(field) => Self { merges: field.patch_merges(), merge_key: field.merge_key(), element: field.type_id().element() },
            None => Self::default(),
        }
    }
}

/// The type of a key's value: a field's, or a map's element.
fn child_type(ty: Option<TypeId>, key: &str) -> (Option<TypeId>, Option<Field>) {
    let Some(ty) = ty else { return (None, None) };
    match ty.kind() {
        Kind::Struct => {
            let field = ty.field(key);
            (field.map(Field::type_id), field)
        }
        Kind::Map(element) => (Some(element), None),
        _ => (None, None),
    }
}

fn merge_map(mut original: Map<String, Value>, patch: &Map<String, Value>, ty: Option<TypeId>) -> Result<Map<String, Value>, PatchError> {
    match patch.get(PATCH) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => return Ok(without_directives(patch)),
            "delete" => return Ok(Map::new()),
            "merge" => {}
            other => return Err(unknown_directive(other, patch)),
        },
        Some(other) => return Err(unknown_directive(&go_map(other), patch)),
    }
    retain_keys(&mut original, patch)?;
    let orders = parallel_lists(patch, SET_ELEMENT_ORDER, "invalid patch format of setElementOrder list")?;
    let deletions = parallel_lists(patch, DELETE_FROM_PRIMITIVE_LIST, "invalid patch format of primitive list")?;
    for (key, patch_value) in patch {
        if key.starts_with('$') && is_directive(key) {
            continue;
        }
        let (value_type, field) = child_type(ty, key);
        if patch_value.is_null() {
            original.remove(key);
            continue;
        }
        let merged = match (original.remove(key), patch_value) {
            (Some(Value::Object(map)), Value::Object(patch)) => Value::Object(merge_map(map, patch, value_type)?),
            (_, Value::Object(patch)) => Value::Object(merge_map(Map::new(), patch, value_type)?),
            (have, Value::Array(patch)) => {
                let items = match have {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                merge_list(items, patch, ListRule::of(field), order_of(&orders, key), deletions_of(&deletions, key))?
            }
            (_, other) => other.clone(),
        };
        original.insert(key.clone(), merged);
    }
    // Directives for lists that the patch doesn't otherwise mention.
    for (key, removed) in &deletions {
        if let (false, Some(Value::Array(items))) = (patch.contains_key(*key), original.get_mut(*key)) {
            delete_from(items, removed);
        }
    }
    for (key, order) in &orders {
        if let (false, Some(Value::Array(items))) = (patch.contains_key(*key), original.get_mut(*key)) {
            let rule = ListRule::of(child_type(ty, key).1);
            let taken = std::mem::take(items);
            *items = reorder(taken, order, &[], rule);
        }
    }
    Ok(original)
}

fn is_directive(key: &str) -> bool {
    key == PATCH
        || key == RETAIN_KEYS
        || parallel_key(key, SET_ELEMENT_ORDER).is_some()
        || parallel_key(key, DELETE_FROM_PRIMITIVE_LIST).is_some()
}

fn parallel_key<'a>(key: &'a str, directive: &str) -> Option<&'a str> {
    key.strip_prefix(directive)?.strip_prefix('/')
}

/// The lists of a directive, by the field that each is about.
fn parallel_lists<'a>(patch: &'a Map<String, Value>, directive: &str, complaint: &str) -> Result<Vec<(&'a str, &'a [Value])>, PatchError> {
    let mut lists = Vec::new();
    for (key, value) in patch {
        if let Some(field) = parallel_key(key, directive) {
            let Value::Array(items) = value else {
                return Err(PatchError::Malformed(complaint.to_owned()));
            };
            lists.push((field, items.as_slice()));
        }
    }
    Ok(lists)
}

fn order_of<'a>(orders: &[(&str, &'a [Value])], key: &str) -> Option<&'a [Value]> {
    orders.iter().find(|(k, _)| *k == key).map(|(_, order)| *order)
}

fn deletions_of<'a>(deletions: &[(&str, &'a [Value])], key: &str) -> &'a [Value] {
    deletions.iter().find(|(k, _)| *k == key).map(|(_, list)| *list).unwrap_or_default()
}

fn unknown_directive(directive: &str, patch: &Map<String, Value>) -> PatchError {
    PatchError::Unmergeable(format!("unknown patch type: {directive} in map: {}", go_map(&Value::Object(patch.clone()))))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Unmergeable(format!("map: {} does not contain declared merge key: {key}", go_map(item)))
}

/// Removes the keys that `$retainKeys` doesn't list; it must list every key of the patch.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys: HashSet<&str> = directive.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let listed = |key: &String| keys.contains(key.as_str());
    let missing = patch.iter().any(|(key, value)| !is_directive(key) && !value.is_null() && !listed(key));
    if missing || !directive.is_array() {
        return Err(PatchError::Malformed("invalid patch format of retainKeys".to_owned()));
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// A copy of a map with all directives taken out, at every level.
fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter(|(key, value)| !is_directive(key) && !value.is_null()).map(|(key, value)| (key.clone(), clean(value))).collect()
}

fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(items) => {
            let deletes = |item: &&Value| item.get(PATCH).and_then(Value::as_str) != Some("delete");
            let only_directive = |item: &Value| item.as_object().is_some_and(|m| m.len() == 1 && m.contains_key(PATCH));
            items.iter().filter(deletes).filter(|item| !only_directive(item)).map(clean).collect()
        }
        other => other.clone(),
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    rule: ListRule,
    order: Option<&[Value]>,
    deletions: &[Value],
) -> Result<Value, PatchError> {
    let replaces = |item: &Value| item.get(PATCH).and_then(Value::as_str) == Some("replace");
    if !rule.merges || patch.iter().any(replaces) {
        return Ok(Value::Array(patch.iter().filter(|item| !only_directive(item)).map(clean).collect()));
    }
    let objects = patch.iter().chain(&original).any(Value::is_object);
    let merged = if objects {
        let key = rule.merge_key.ok_or_else(|| no_merge_key(&Value::Array(patch.to_vec()), ""))?;
        merge_objects(original.clone(), patch, key, rule.element)?
    } else {
        let mut items = original.clone();
        delete_from(&mut items, deletions);
        let mut known: HashSet<String> = items.iter().map(Value::to_string).collect();
        items.extend(patch.iter().filter(|item| known.insert(item.to_string())).cloned());
        items
    };
    // Without an order of its own the patch is the order: its items come as it has them, new ones before the others.
    Ok(Value::Array(reorder(merged, order.unwrap_or(patch), &original, rule)))
}

/// Removes scalars from a list.
fn delete_from(items: &mut Vec<Value>, removed: &[Value]) {
    if !removed.is_empty() {
        let removed: HashSet<String> = removed.iter().map(Value::to_string).collect();
        items.retain(|item| !removed.contains(&item.to_string()));
    }
}

fn only_directive(item: &Value) -> bool {
    item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(PATCH))
}

fn merge_objects(items: Vec<Value>, patch: &[Value], key: &str, element: Option<TypeId>) -> Result<Vec<Value>, PatchError> {
    // Where each key stands; a deleted item leaves its place empty.
    let mut items: Vec<Option<Value>> = items.into_iter().map(Some).collect();
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(value) = item.as_ref().and_then(|item| item.get(key)) {
            places.entry(value.to_string()).or_default().push(index);
        }
    }
    for item in patch {
        let Value::Object(patch_item) = item else {
            return Err(PatchError::Malformed("invalid JSON document".to_owned()));
        };
        if only_directive(item) && patch_item[PATCH] == "merge" {
            continue;
        }
        let Some(wanted) = patch_item.get(key) else {
            return Err(no_merge_key(item, key));
        };
        let name = wanted.to_string();
        if patch_item.get(PATCH).and_then(Value::as_str) == Some("delete") {
            places.remove(&name).into_iter().flatten().for_each(|index| items[index] = None);
            continue;
        }
        match places.get(&name).and_then(|indexes| indexes.first()) {
            Some(&index) => {
                let Some(Value::Object(have)) = items[index].take() else {
                    return Err(no_merge_key(item, key));
                };
                let merged = merge_map(have, patch_item, element)?;
                if merged.get(key) != Some(wanted) {
                    // `$patch: replace` without the key, say: the item is no longer known by it.
                    places.remove(&name);
                }
                items[index] = Some(Value::Object(merged));
            }
            None => {
                // Merged into nothing, so that directives inside of the new item are followed too.
                places.insert(name, vec![items.len()]);
                items.push(Some(Value::Object(merge_map(Map::new(), patch_item, element)?)));
            }
        }
    }
    Ok(items.into_iter().flatten().collect())
}

/// Items named by `order` come in that order; each other item stays behind the item that it followed on the server.
fn reorder(items: Vec<Value>, order: &[Value], server: &[Value], rule: ListRule) -> Vec<Value> {
    let identity = |item: &Value| match rule.merge_key {
        Some(key) if item.is_object() => item.get(key).unwrap_or(&Value::Null).to_string(),
        _ => item.to_string(),
    };
    let ranks = |list: &[Value]| {
        let mut ranks = HashMap::with_capacity(list.len());
        list.iter().enumerate().for_each(|(index, item)| {
            ranks.entry(identity(item)).or_insert(index);
        });
        ranks
    };
    let (order, server) = (ranks(order), ranks(server));
    let rank = |item: &Value| order.get(&identity(item)).copied();
    let place = |item: &Value| server.get(&identity(item)).copied();
    let (mut ordered, rest): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|item| rank(item).is_some());
    ordered.sort_by_cached_key(rank);
    // Both sequences are walked; an item that only the server has goes first if the server has it before the other.
    let mut merged = Vec::with_capacity(ordered.len() + rest.len());
    let mut rest = rest.into_iter().peekable();
    for item in ordered {
        while let Some(other) = rest.peek() {
            let before = match (place(other), place(&item)) {
                (Some(other), Some(item)) => other < item,
                _ => false,
            };
            if !before {
                break;
            }
            merged.extend(rest.next());
        }
        merged.push(item);
    }
    merged.extend(rest);
    merged
}

/// A value as Go's `%v` prints maps: `map[a:1 b:[x y]]`.
fn go_map(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_map(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_map).collect();
            format!("[{}]", items.join(" "))
        }
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::type_of;
    use proptest::prelude::*;
    use serde_json::json;

    fn apply(original: &Value, patch: &Value) -> Result<Value, String> {
        let pod = type_of("", "v1", "Pod").expect("known kind");
        let mut object = original.clone();
        strategic_merge_patch(pod, &mut object, patch).map_err(|e| e.to_string())?;
        Ok(object)
    }

    fn spec(fields: Value) -> Value {
        json!({"spec": fields})
    }

    #[test]
    fn patches_follow_the_schema() {
        let two = json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]});
        let finalizers = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        let volumes = spec(json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
        let cases = [
            (
                "maps merge, null removes",
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
                json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
            ),
            (
                "lists of objects merge by key",
                spec(two.clone()),
                spec(json!({"containers": [{"name": "b", "image": "2"}]})),
                spec(json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]})),
            ),
            (
                "new items come before those that only the server has",
                spec(two.clone()),
                spec(json!({"containers": [{"name": "c"}]})),
                spec(json!({"containers": [{"name": "c"}, {"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]})),
            ),
            (
                "atomic lists are replaced",
                spec(two.clone()),
                spec(json!({"containers": [{"name": "a", "args": ["y", "z"]}]})),
                spec(json!({"containers": [{"name": "a", "image": "1", "args": ["y", "z"]}, {"name": "b", "image": "1"}]})),
            ),
            (
                "$patch delete of an item",
                spec(two.clone()),
                spec(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
                spec(json!({"containers": [{"name": "b", "image": "1"}]})),
            ),
            (
                "$patch replace of a list",
                spec(two.clone()),
                spec(json!({"containers": [{"name": "z"}, {"$patch": "replace"}]})),
                spec(json!({"containers": [{"name": "z"}]})),
            ),
            (
                "$patch replace of a map",
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
                json!({"metadata": {"labels": {"b": "2"}}}),
            ),
            (
                "$patch delete of a map",
                json!({"metadata": {"labels": {"a": "1"}}}),
                json!({"metadata": {"labels": {"$patch": "delete"}}}),
                json!({"metadata": {"labels": {}}}),
            ),
            (
                "lists of scalars unite",
                finalizers.clone(),
                json!({"metadata": {"finalizers": ["b", "d"]}}),
                json!({"metadata": {"finalizers": ["a", "b", "d", "c"]}}),
            ),
            (
                "scalars are deleted",
                finalizers.clone(),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}),
                json!({"metadata": {"finalizers": ["a", "c"]}}),
            ),
            (
                "scalars are ordered",
                finalizers.clone(),
                json!({"metadata": {"$setElementOrder/finalizers": ["d", "a"], "finalizers": ["d"]}}),
                json!({"metadata": {"finalizers": ["d", "a", "b", "c"]}}),
            ),
            (
                "objects are ordered",
                spec(two.clone()),
                spec(json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}], "containers": [{"name": "c"}]})),
                spec(json!({"containers": [{"name": "c"}, {"name": "b", "image": "1"}, {"name": "a", "image": "1", "args": ["x"]}]})),
            ),
            (
                "order without a list",
                spec(two.clone()),
                spec(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})),
                spec(json!({"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "1", "args": ["x"]}]})),
            ),
            (
                "$retainKeys",
                volumes.clone(),
                spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]})),
                spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
            ),
            (
                "merge keys of other lists",
                spec(json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "name": "x"}]}]})),
                spec(json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}, {"containerPort": 2}]}]})),
                spec(
                    json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "name": "x", "protocol": "UDP"}, {"containerPort": 2}]}]}),
                ),
            ),
            (
                "a map where there was none",
                json!({}),
                json!({"metadata": {"labels": {"a": "1", "b": null}}}),
                json!({"metadata": {"labels": {"a": "1"}}}),
            ),
            (
                "conditions",
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "X"}], "conditions": [{"type": "X", "status": "True"}, {"type": "Ready", "status": "False"}]}}),
                json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]}}),
            ),
        ];
        for (name, original, patch, want) in cases {
            assert_eq!(apply(&original, &patch), Ok(want), "{name}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        let cases = [
            (spec(json!({"containers": [{"image": "x"}]})), "map: map[image:x] does not contain declared merge key: name"),
            (spec(json!({"$patch": "nope"})), "unknown patch type: nope in map: map[$patch:nope]"),
            (json!({"metadata": {"labels": {"$retainKeys": [], "a": "b"}}}), "invalid patch format of retainKeys"),
        ];
        for (patch, want) in cases {
            assert_eq!(apply(&json!({"spec": {"containers": [{"name": "a"}]}}), &patch), Err(want.to_owned()));
        }
        let pod = type_of("", "v1", "Pod").expect("known kind");
        let error = strategic_merge_patch(pod, &mut json!({}), &json!([1])).expect_err("no map");
        assert_eq!(error.to_status().code(), 400);
    }

    proptest! {
        /// A patch that is the object itself changes nothing, and a patch applied twice is the same as once.
        #[test]
        fn patching_is_idempotent(names in prop::collection::btree_set("[a-e]", 0..5), others in prop::collection::btree_set("[a-e]", 0..5)) {
            let object = |names: &std::collections::BTreeSet<String>, image: &str| {
                let containers: Vec<Value> = names.iter().map(|n| json!({"name": n, "image": image})).collect();
                json!({"metadata": {"finalizers": names}, "spec": {"containers": containers}})
            };
            let (original, patch) = (object(&names, "1"), object(&others, "2"));
            prop_assert_eq!(apply(&original, &original), Ok(original.clone()));
            let once = apply(&original, &patch).expect("applies");
            prop_assert_eq!(apply(&once, &patch), Ok(once.clone()));
            prop_assert_eq!(once["spec"]["containers"].as_array().map(Vec::len), Some(names.union(&others).count()));
        }
    }
}
