//! DefaultTolerationSeconds: pods stay a while on a node that is not ready or unreachable.

use futures::future::BoxFuture;
use serde_json::{Value, json};
use trireme_api::meta;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::admission::toleration_seconds::TolerationSeconds;
use crate::error::Answer;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The plugin.
pub struct DefaultTolerationSeconds(pub TolerationSeconds);

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is_on("", "pods", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        if let Some(pod) = request.object_mut() {
            add_tolerations(pod, self.0);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn add_tolerations(pod: &mut Value, secs: TolerationSeconds) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    for (key, secs) in [(NOT_READY, secs.not_ready), (UNREACHABLE, secs.unreachable)] {
        let covered = tolerations.iter().any(|toleration| {
            let given = meta::str_at(toleration, &["key"]);
            let effect = meta::str_at(toleration, &["effect"]);
            (given.is_empty() || given == key) && (effect.is_empty() || effect == "NoExecute")
        });
        if !covered {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": secs}));
        }
    }
}
