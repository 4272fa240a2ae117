//! Restores the stored fields that an update of `ephemeralcontainers` or `resize` may not change.
//!
//! Upstream: `dropNonEphemeralContainerUpdates` and `dropNonResizeUpdates` in `pkg/registry/core/pod/strategy.go`.

use serde_json::{Value, json};

use crate::apply::Untracked;
use crate::meta;
use crate::resource::{carry, carry_own_metadata};
use crate::time::{self, Timestamp};

/// Sets the condition `DisruptionTarget`, so that controllers can tell a disruption from a failure of the pod itself.
pub(crate) fn mark_evicted(pod: &mut Value, now: Timestamp) {
    let since = meta::list_at(pod, &["status", "conditions"]).iter().find(|c| c["type"] == "DisruptionTarget" && c["status"] == "True");
    let since = since.map_or_else(|| json!(time::format(now)), |condition| condition["lastTransitionTime"].clone());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastProbeTime": null, "lastTransitionTime": since,
    });
    let conditions = meta::map_at(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    match conditions.as_array_mut() {
        Some(list) => match list.iter_mut().find(|known| known["type"] == "DisruptionTarget") {
            Some(known) => *known = condition,
            None => list.push(condition),
        },
        None => *conditions = json!([condition]),
    }
}

/// The fields that a write of the pod itself or of one of these subresources leaves as they are.
pub(crate) fn untracked(subresource: &str) -> Untracked {
    match subresource {
        "ephemeralcontainers" => Untracked::AllBut(&["spec.ephemeralContainers"]),
        "resize" => Untracked::AllBut(&[
            "spec.containers.*.resources",
            "spec.containers.*.resizePolicy",
            "spec.initContainers.*.resources",
            "spec.initContainers.*.resizePolicy",
        ]),
        _ => Untracked::Only(&["status"]),
    }
}

/// Puts back everything that the subresource does not own; counts the generation.
pub(crate) fn prepare(subresource: &str, pod: &mut Value, old: &Value) {
    match subresource {
        "ephemeralcontainers" => ephemeral_containers(pod, old),
        "resize" => resize(pod, old),
        _ => return,
    }
    if pod.get("spec") != old.get("spec") {
        meta::set_generation(pod, meta::generation(old) + 1);
    }
}

fn ephemeral_containers(pod: &mut Value, old: &Value) {
    let wanted = meta::get(pod, &["spec", "ephemeralContainers"]).cloned();
    keep(pod, old);
    let spec = meta::map_at(pod, "spec");
    match wanted {
        Some(list) => spec.insert("ephemeralContainers".to_owned(), list),
        None => spec.remove("ephemeralContainers"),
    };
}

/// Containers that were added, removed, renamed or reordered stay as they were sent: validation refuses them.
fn resize(pod: &mut Value, old: &Value) {
    let lists = ["containers", "initContainers"].map(|list| {
        let (new, before) = (meta::list_at(pod, &["spec", list]), meta::list_at(old, &["spec", list]));
        (list, new.to_vec(), before.to_vec())
    });
    if lists.iter().any(|(_, new, before)| new.len() != before.len()) {
        return;
    }
    let pod_level = meta::get(pod, &["spec", "resources"]).cloned();
    keep(pod, old);
    let spec = meta::map_at(pod, "spec");
    match pod_level {
        Some(resources) => spec.insert("resources".to_owned(), resources),
        None => spec.remove("resources"),
    };
    for (list, new, before) in lists {
        if !new.is_empty() {
            spec.insert(list.to_owned(), Value::Array(resized(new, before)));
        }
    }
}

fn resized(new: Vec<Value>, mut before: Vec<Value>) -> Vec<Value> {
    if new.iter().zip(&before).any(|(a, b)| a.get("name") != b.get("name")) {
        return new;
    }
    for (container, wanted) in before.iter_mut().zip(&new) {
        for key in ["resources", "resizePolicy"] {
            carry(container, wanted, key);
        }
    }
    before
}

fn keep(pod: &mut Value, old: &Value) {
    carry(pod, old, "spec");
    carry(pod, old, "status");
    carry_own_metadata(pod, old);
}
