//! PodResizeValidator: a pod grows in place only to what its node can give, and only on Linux.
//!
//! Upstream judges the node's whole allocatable cpu and memory here; whether other pods leave enough is for the kubelet to say. Answers
//! to <https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/>.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::meta;
use trireme_api::quantity::Quantity;
use trireme_api::quota::{self, Subject};
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

/// The plugin.
pub struct PodResizeValidator {
    reader: Arc<dyn ObjectReader>,
}

impl PodResizeValidator {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> PodResizeValidator {
        PodResizeValidator { reader: environment.reader.clone() }
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let (Some(pod), Some(old)) = (request.object(), request.old_object.as_deref()) else { return Ok(()) };
        let name = meta::str_at(pod, &["spec", "nodeName"]);
        if name.is_empty() || meta::generation(pod) == meta::generation(old) {
            return Ok(());
        }
        let Some(node) = find(&*self.reader, "", "nodes", "", name).await else {
            return Err(forbid(request, &format!("node {name:?} not found")));
        };
        if let Some(system) = meta::label(&node.object, "kubernetes.io/os").filter(|system| *system != "linux") {
            let text = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(refused(request, &text, "UnsupportedPlatform"));
        }
        match excess(pod, &node.object) {
            Some(excess) => {
                let text = format!("node didn't have enough allocatable resources: {excess}");
                Err(refused(request, &text, "NodeCapacity"))
            }
            None => Ok(()),
        }
    }
}

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update && request.is_on("", "pods", "resize")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

fn refused(request: &AdmissionRequest, why: &str, cause: &str) -> Box<Status> {
    forbid(request, why).with_cause(cause, "", "").into()
}

/// What the pod requests beyond the node's allocatable resources, in words.
fn excess(pod: &Value, node: &Value) -> Option<String> {
    // What the spec says counts, and not what the status says is allocated now.
    let wanted = json!({"spec": pod.get("spec")});
    let requests = Subject::of("", "pods")?.usage(&wanted, Timestamp::UNIX_EPOCH);
    let allocatable = quota::amounts(meta::get(node, &["status", "allocatable"]).unwrap_or(&Value::Null));
    let mut parts = Vec::new();
    for (name, number) in [("cpu", Quantity::milli_value as fn(&Quantity) -> i64), ("memory", Quantity::value)] {
        let [wanted, there] = [&requests, &allocatable].map(|amounts| amounts.get(name).copied().unwrap_or_else(Quantity::zero));
        if wanted > there {
            parts.push(format!("{name}, requested: {}, allocatable: {}", number(&wanted), number(&there)));
        }
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::{on, world};

    #[tokio::test]
    async fn a_pod_fits_its_node() {
        let world = world();
        for (name, system) in [("linux", "linux"), ("other", "windows")] {
            let allocatable = json!({"cpu": "2", "memory": "1Gi"});
            let labels = json!({"kubernetes.io/os": system});
            world.reader.put("", "nodes", json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}}));
        }
        let pod = |node: &str, generation: i64, cpu: &str, memory: &str| {
            let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]);
            json!({"metadata": {"namespace": "a", "name": "p", "generation": generation}, "spec": {"nodeName": node, "containers": containers},
                "status": {"phase": "Running", "containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "64"}}}]}})
        };
        let both = "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, \
                    allocatable: 1073741824";
        let system = "pod resize is only supported on linux nodes, node \"other\" is \"windows\"";
        for (new, refusal) in [
            (pod("linux", 2, "2", "1Gi"), None),
            (pod("linux", 2, "2500m", "2Gi"), Some((both, "NodeCapacity"))),
            (pod("linux", 1, "2500m", "2Gi"), None),
            (pod("", 2, "64", "1Gi"), None),
            (pod("other", 2, "1", "1Mi"), Some((system, "UnsupportedPlatform"))),
            (pod("absent", 2, "1", "1Mi"), Some(("node \"absent\" not found", ""))),
        ] {
            let shown = new.to_string();
            let old = pod("linux", 1, "1", "1Mi");
            let mut request = on("", "pods", "a", Operation::Update, new);
            (request.name, request.subresource, request.old_object) = ("p".to_owned(), "resize".to_owned(), Some(Arc::new(old)));
            let said = world.validate(&request).await.err().map(|status| {
                let cause = status.details.as_ref().and_then(|details| details.causes.first());
                (status.code(), status.message.clone(), cause.map(|cause| cause.reason.clone()).unwrap_or_default())
            });
            let wanted = refusal.map(|(text, cause)| (403, format!("pods \"p\" is forbidden: {text}"), cause.to_owned()));
            assert_eq!(said, wanted, "{shown}");
        }
    }
}
