//! Conditions of a request: decisions are only made through `approval`, and every condition has its times.

use serde_json::{Value, json};

use crate::meta;
use crate::time::{self, Timestamp};
use crate::validate::{At, same};

/// Writes or removes `status.conditions`.
pub(crate) fn set(object: &mut Value, conditions: Option<Value>) {
    let status = meta::map_at(object, "status");
    match conditions {
        Some(list) => status.insert("conditions".to_owned(), list),
        None => status.remove("conditions"),
    };
}

fn list(object: &Value) -> &[Value] {
    meta::list_at(object, &["status", "conditions"])
}

/// Puts back the contents of the decisions, unless some were added or removed: validation refuses that.
pub(crate) fn keep_decisions(object: &mut Value, old: &Value) {
    for kind in ["Approved", "Denied"] {
        let before: Vec<Value> = list(old).iter().filter(|condition| condition["type"] == kind).cloned().collect();
        let Some(Value::Array(conditions)) = object.pointer_mut("/status/conditions") else { return };
        let now: Vec<&mut Value> = conditions.iter_mut().filter(|condition| condition["type"] == kind).collect();
        if now.len() == before.len() {
            now.into_iter().zip(before).for_each(|(condition, stored)| *condition = stored);
        }
    }
}

/// Gives conditions the times that they lack. One whose status has not changed keeps its transition time.
pub(crate) fn stamp(object: &mut Value, old: &Value, now: Timestamp) {
    let now = json!(time::format(now));
    let unset = |condition: &Value, key: &str| condition.get(key).is_none_or(Value::is_null);
    let Some(Value::Array(conditions)) = object.pointer_mut("/status/conditions") else { return };
    for condition in conditions.iter_mut().filter(|condition| condition.is_object()) {
        if unset(condition, "lastUpdateTime") {
            condition["lastUpdateTime"] = now.clone();
        }
        if unset(condition, "lastTransitionTime") {
            let same = |before: &&Value| before["type"] == condition["type"] && before["status"] == condition["status"];
            let before = list(old).iter().filter(same).find(|before| !unset(before, "lastTransitionTime"));
            condition["lastTransitionTime"] = before.map_or_else(|| now.clone(), |before| before["lastTransitionTime"].clone());
        }
    }
}

/// Conditions of the types `kept` may not be removed, those of `decided` may be neither added nor changed.
pub(crate) fn unchanged(object: &At<'_>, old: &At<'_>, kept: &[&str], decided: &[&str]) {
    let (now, then) = (object.at("status").at("conditions"), old.at("status").at("conditions"));
    for kind in kept {
        let of = |list: &At<'_>| -> Vec<Value> {
            list.items().filter(|one| one.at("type").text() == *kind).map(|one| one.value.clone()).collect()
        };
        let (new, before) = (of(&now), of(&then));
        if before.len() > new.len() {
            now.forbidden(format!("updates may not remove a condition of type {kind:?}"));
        } else if !decided.contains(kind) {
            continue;
        } else if before.len() < new.len() {
            now.forbidden(format!("updates may not add a condition of type {kind:?}"));
        } else if new.iter().zip(&before).any(|(a, b)| !same(a, b)) {
            now.forbidden(format!("updates may not modify a condition of type {kind:?}"));
        }
    }
}
