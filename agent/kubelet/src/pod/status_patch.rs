//! The patch that brings a pod's status at the API server up to date. Pure.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::status::{RESIZE_IN_PROGRESS, RESIZE_PENDING};

/// The strategic merge patch that turns `before` into `after`, or None when they are the same. It carries the UID, so that it can
/// never hit a successor of the same name.
pub(crate) fn patch(uid: &str, before: Option<&PodStatus>, after: &PodStatus) -> Option<Value> {
    let to_map = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (before.map(to_map).unwrap_or_default(), to_map(after));
    let mut changed = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match (key.as_str(), value) {
            // These lists merge by key: what is gone has to be said.
            ("podIPs" | "hostIPs", Value::Array(items)) if old.contains_key(key) => {
                Value::Array(std::iter::once(json!({"$patch": "replace"})).chain(items.iter().cloned()).collect())
            }
            // Conditions merge by type: only ours that changed are sent, so that those of others stay.
            ("conditions", Value::Array(items)) => {
                let known = old.get(key).and_then(Value::as_array);
                let gone = known.into_iter().flatten().filter(|k| may_end(k) && !items.iter().any(|c| c["type"] == k["type"]));
                let gone: Vec<Value> = gone.map(|k| json!({"$patch": "delete", "type": k["type"]})).collect();
                let fresh: Vec<Value> =
                    items.iter().filter(|c| !known.is_some_and(|k| k.contains(c))).map(explicit_nulls).chain(gone).collect();
                if fresh.is_empty() {
                    continue;
                }
                Value::Array(fresh)
            }
            _ => value.clone(),
        };
        changed.insert(key.clone(), value);
    }
    for key in ["reason", "message"] {
        if old.contains_key(key) && !new.contains_key(key) {
            changed.insert(key.into(), Value::Null);
        }
    }
    (!changed.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": changed}))
}

/// Whether the absence of a condition means something: the others are set to False instead.
fn may_end(condition: &Value) -> bool {
    condition["type"] == RESIZE_PENDING || condition["type"] == RESIZE_IN_PROGRESS
}

/// A condition merges field by field, so a reason or message that went away must be nulled.
fn explicit_nulls(condition: &Value) -> Value {
    let mut condition = condition.clone();
    if let Some(map) = condition.as_object_mut() {
        for key in ["reason", "message"] {
            map.entry(key).or_insert(Value::Null);
        }
    }
    condition
}
