//! AlwaysPullImages: every container pulls its image with its pod's own credentials.
//!
//! A pod cannot use a private image that another pod has pulled to the node. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#alwayspullimages>.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldPath, aggregate};
use trireme_api::meta;
use trireme_api::status::Status;

use crate::admission::effects::Effects;
use crate::admission::forbid;
use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;

const ALWAYS: &str = "Always";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The plugin.
pub struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Admit, Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is_on("", "pods", "")
            && match request.operation {
                Operation::Create => true,
                Operation::Update => brings_an_image(request),
                Operation::Delete | Operation::Connect => false,
            }
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        if let Some(spec) = request.object_mut().and_then(|pod| pod.get_mut("spec")) {
            set_policies(spec);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(std::future::ready(judge(request)))
    }
}

fn set_policies(spec: &mut Value) {
    for list in LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            container.insert("imagePullPolicy".to_owned(), json!(ALWAYS));
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            image.insert("pullPolicy".to_owned(), json!(ALWAYS));
        }
    }
}

/// A later plugin may have set another policy. Upstream's answer is an aggregate, which has no reason and the code 500.
fn judge(request: &AdmissionRequest) -> Answer<()> {
    let Some(pod) = request.object() else { return Ok(()) };
    let mut errors = Vec::new();
    let mut check = |policy: &str, path: FieldPath| {
        if policy != ALWAYS {
            errors.push(forbid(request, &FieldError::not_supported(&path, policy, &[ALWAYS]).to_string()).message);
        }
    };
    let spec = FieldPath::new("spec");
    for list in LISTS {
        for (at, container) in meta::list_at(pod, &["spec", list]).iter().enumerate() {
            check(meta::str_at(container, &["imagePullPolicy"]), spec.child(list).index(at).child("imagePullPolicy"));
        }
    }
    for (at, volume) in meta::list_at(pod, &["spec", "volumes"]).iter().enumerate() {
        if volume.get("image").is_some_and(|image| !image.is_null()) {
            check(meta::str_at(volume, &["image", "pullPolicy"]), spec.child("volumes").index(at).child("image").child("pullPolicy"));
        }
    }
    match aggregate(&errors) {
        Some(text) => Err(Status::failure(500, "", text).into()),
        None => Ok(()),
    }
}

/// Whether an update names an image that no container of the pod had.
fn brings_an_image(request: &AdmissionRequest) -> bool {
    let (Some(new), Some(old)) = (request.object(), request.old_object.as_deref()) else { return true };
    !images(new).is_subset(&images(old))
}

fn images(pod: &Value) -> BTreeSet<&str> {
    let containers = LISTS.iter().flat_map(|list| meta::list_at(pod, &["spec", list]));
    containers.map(|container| meta::str_at(container, &["image"])).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admission::tests::{pod, world_with};

    fn spec(policy: &str, image: &str) -> Value {
        json!({"initContainers": [{"name": "i", "image": "i", "imagePullPolicy": policy}], "containers": [{"name": "c", "image": image}],
            "volumes": [{"name": "v", "image": {"reference": "v", "pullPolicy": policy}}]})
    }

    #[tokio::test]
    async fn every_policy_becomes_always() {
        let world = world_with(&["AlwaysPullImages"]);
        let mut create = pod("a", spec("Never", "c"));
        world.admit(&mut create).await.unwrap();
        let object = create.object().unwrap();
        for at in ["/spec/initContainers/0/imagePullPolicy", "/spec/containers/0/imagePullPolicy", "/spec/volumes/0/image/pullPolicy"] {
            assert_eq!(object.pointer(at), Some(&json!(ALWAYS)), "{at}");
        }
        assert!(judge(&create).is_ok());
        let status = judge(&pod("a", spec("Never", "c"))).unwrap_err();
        let part =
            "pods \"p-\" is forbidden: spec.initContainers[0].imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\"";
        assert!(status.code() == 500 && status.message.starts_with('[') && status.message.contains(part), "{}", status.message);

        let mut update = pod("a", spec("Never", "c"));
        (update.operation, update.old_object) = (Operation::Update, Some(Arc::new(json!({"spec": spec("Never", "c")}))));
        assert!(!AlwaysPullImages.handles(&update), "nothing new is pulled");
        update.set_object(json!({"spec": spec("Never", "i")}));
        assert!(!AlwaysPullImages.handles(&update), "an image that goes is not pulled");
        update.set_object(json!({"spec": spec("Never", "other")}));
        assert!(AlwaysPullImages.handles(&update));
    }
}
