//! LimitPodHardAntiAffinityTopology: a required anti-affinity keeps pods off hosts, and not off zones or anything larger.
//!
//! Otherwise one pod could keep all others out of a zone. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#limitpodhardantiaffinitytopology>.

use futures::future::BoxFuture;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;

const HOST: &str = "kubernetes.io/hostname";
const REQUIRED: [&str; 4] = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];

/// The plugin.
pub struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is_on("", "pods", "")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(std::future::ready(judge(request)))
    }
}

fn judge(request: &AdmissionRequest) -> Answer<()> {
    let Some(pod) = request.object() else { return Ok(()) };
    let mut keys = meta::list_at(pod, &REQUIRED).iter().map(|term| meta::str_at(term, &["topologyKey"]));
    let Some(key) = keys.find(|key| *key != HOST) else { return Ok(()) };
    let text = format!("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed");
    Err(Status::forbidden(&request.resource.group_resource(), meta::name(pod), &text).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::tests::{pod, world_with};

    #[tokio::test]
    async fn only_hosts_are_kept_free() {
        let world = world_with(&["LimitPodHardAntiAffinityTopology"]);
        let with = |when: &str, keys: &[&str]| {
            let terms: Vec<_> = keys.iter().map(|key| json!({"topologyKey": key})).collect();
            pod("a", json!({"containers": [], "affinity": {"podAntiAffinity": {when: terms}}}))
        };
        let required = REQUIRED[3];
        assert!(world.validate(&with(required, &[HOST, HOST])).await.is_ok());
        assert!(world.validate(&with("preferredDuringSchedulingIgnoredDuringExecution", &["zone"])).await.is_ok());
        let status = world.validate(&with(required, &[HOST, "zone"])).await.unwrap_err();
        let message = "pods is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key \
                       kubernetes.io/hostname is allowed";
        assert_eq!((status.code(), status.message.as_str()), (403, message));
    }
}
