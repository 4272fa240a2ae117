//! TaintNodesByCondition: a new node takes no pods until the node controller has seen it ready.

use futures::future::BoxFuture;
use serde_json::{Value, json};
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is_on("", "nodes", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        if let Some(node) = request.object_mut() {
            add_taint(node);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn add_taint(node: &mut Value) {
    let Some(node) = node.as_object_mut() else { return };
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
