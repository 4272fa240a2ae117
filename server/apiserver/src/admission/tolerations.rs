//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable.

use serde_json::{Value, json};
use trireme_api::meta;

use super::is_on;
use crate::admission_request::{AdmissionRequest, Operation};

const SECS: i64 = 300;
const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Runs the plugin.
pub fn admit(request: &mut AdmissionRequest) {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if !writes || !is_on(request, "", "pods", "") {
        return;
    }
    let Some(spec) = request.object.as_mut().and_then(|pod| pod.get_mut("spec")).and_then(Value::as_object_mut) else {
        return;
    };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else {
        return;
    };
    for key in KEYS {
        let covered = tolerations.iter().any(|toleration| {
            let given = meta::str_at(toleration, &["key"]);
            let effect = meta::str_at(toleration, &["effect"]);
            (given.is_empty() || given == key) && (effect.is_empty() || effect == "NoExecute")
        });
        if !covered {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECS}));
        }
    }
}
