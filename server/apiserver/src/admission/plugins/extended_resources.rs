//! ExtendedResourceToleration: a pod that requests an extended resource tolerates the taint of that name.
//!
//! So nodes with devices can be tainted for the pods that use them. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#extendedresourcetoleration>.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use trireme_api::{meta, names};

use crate::admission::effects::Effects;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;

/// The plugin.
pub struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is_on("", "pods", "")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        let resources = request.object().map(requested).unwrap_or_default();
        if !resources.is_empty()
            && let Some(spec) = request.object_mut().and_then(|pod| pod.get_mut("spec")).and_then(Value::as_object_mut)
        {
            resources.iter().for_each(|resource| tolerate(spec, resource));
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The extended resources that containers request, sorted.
fn requested(pod: &Value) -> BTreeSet<String> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| meta::list_at(pod, &["spec", list]));
    let requests = containers.filter_map(|container| meta::get(container, &["resources", "requests"])?.as_object());
    requests.flat_map(Map::keys).filter(|name| is_extended(name)).cloned().collect()
}

fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native && !name.starts_with("requests.") && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// Adds the toleration. One that differs in its seconds only is replaced.
fn tolerate(spec: &mut Map<String, Value>, resource: &str) {
    let wanted = json!({"key": resource, "operator": "Exists", "effect": "NoSchedule"});
    let mut tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let same = |one: &Value| {
        ["key", "operator", "effect", "value"].iter().all(|field| meta::str_at(one, &[field]) == meta::str_at(&wanted, &[field]))
    };
    let mut is_there = false;
    for one in tolerations.iter_mut().filter(|one| same(one)) {
        is_there = true;
        one.clone_from(&wanted);
    }
    if !is_there {
        tolerations.push(wanted);
    }
    spec.insert("tolerations".to_owned(), Value::from(tolerations));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::{pod, world_with};

    #[tokio::test]
    async fn what_is_requested_is_tolerated() {
        let world = world_with(&["ExtendedResourceToleration"]);
        let container = |name: &str, requests: Value| json!({"name": name, "resources": {"requests": requests}});
        let mut request = pod(
            "a",
            json!({"containers": [container("a", json!({"cpu": "1", "example.com/b": "1", "x.kubernetes.io/no": "1"}))],
                "initContainers": [container("i", json!({"example.com/a": "1", "requests.example.com/no": "1"}))],
                "tolerations": [{"key": "own", "operator": "Exists"}, {"key": "example.com/b", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}]}),
        );
        for _ in 0..2 {
            world.admit(&mut request).await.unwrap();
            let tolerations = request.object().unwrap()["spec"]["tolerations"].as_array().unwrap();
            let mut kept = tolerations.clone();
            kept.retain(|one| !one["key"].as_str().unwrap().starts_with("node.kubernetes.io/"));
            let added = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
            assert_eq!(kept, [json!({"key": "own", "operator": "Exists"}), added("example.com/b"), added("example.com/a")]);
        }
    }
}
