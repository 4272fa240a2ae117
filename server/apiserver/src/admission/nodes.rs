//! TaintNodesByCondition: a new node takes no pods until the node controller has seen it ready.

use serde_json::{Value, json};
use trireme_api::meta;

use super::is_on;
use crate::admission_request::{AdmissionRequest, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Runs the plugin.
pub fn taint_not_ready(request: &mut AdmissionRequest) {
    if request.operation != Operation::Create || !is_on(request, "", "nodes", "") {
        return;
    }
    let Some(node) = request.object.as_mut().and_then(Value::as_object_mut) else {
        return;
    };
    let spec = node.entry("spec").or_insert_with(|| json!({}));
    let has = meta::list_at(spec, &["taints"])
        .iter()
        .any(|taint| meta::str_at(taint, &["key"]) == NOT_READY && meta::str_at(taint, &["effect"]) == "NoSchedule");
    if has {
        return;
    }
    let mut taints = meta::list_at(spec, &["taints"]).to_vec();
    taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    if let Some(spec) = spec.as_object_mut() {
        spec.insert("taints".to_owned(), Value::from(taints));
    }
}
