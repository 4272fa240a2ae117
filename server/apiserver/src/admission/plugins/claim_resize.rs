//! PersistentVolumeClaimResize: a claim grows only where its storage class allows it.
//!
//! Owns the question to the class. That a claim does not shrink, and grows only while it is bound, is validation of the kind too; the
//! class is no part of the claim, so it is asked here. Answers to
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#persistentvolumeclaimresize>.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use trireme_api::meta;
use trireme_api::quantity::{self, Quantity};

use crate::admission::effects::Effects;
use crate::admission::find;
use crate::admission::forbid;
use crate::admission::plugin::{Environment, Phase, Plugin};
use crate::admission::request::{AdmissionRequest, Operation};
use crate::error::Answer;
use crate::storage::lookup::ObjectReader;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const NOT_BOUND: &str = "Only bound persistent volume claims can be expanded";
const NOT_ALLOWED: &str =
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";

/// The plugin.
pub struct PersistentVolumeClaimResize {
    reader: Arc<dyn ObjectReader>,
}

impl PersistentVolumeClaimResize {
    /// Made from `environment`.
    pub fn new(environment: &Environment) -> PersistentVolumeClaimResize {
        PersistentVolumeClaimResize { reader: environment.reader.clone() }
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer<()> {
        let (Some(new), Some(old)) = (request.object(), request.old_object.as_deref()) else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if meta::str_at(old, &["status", "phase"]) != "Bound" {
            return Err(forbid(request, NOT_BOUND));
        }
        if self.allows_growth(new, old).await { Ok(()) } else { Err(forbid(request, NOT_ALLOWED)) }
    }

    async fn allows_growth(&self, new: &Value, old: &Value) -> bool {
        let name = class(new);
        if name.is_empty() || name != class(old) {
            return false;
        }
        let found = find(&*self.reader, "storage.k8s.io", "storageclasses", "", name).await;
        found.is_some_and(|class| class.object["allowVolumeExpansion"] == true)
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn phases(&self) -> &'static [Phase] {
        &[Phase::Validate]
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update && request.is_on("", "persistentvolumeclaims", "")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest, _effects: &'a mut Effects) -> BoxFuture<'a, Answer<()>> {
        Box::pin(self.judge(request))
    }
}

/// What the claim asks for; nothing counts as zero.
fn size(claim: &Value) -> Quantity {
    let asked = meta::get(claim, &["spec", "resources", "requests", "storage"]);
    asked.and_then(|value| quantity::from_json(value).ok()).unwrap_or_else(Quantity::zero)
}

/// The class of the claim: the annotation of old clients comes first, as upstream.
fn class(claim: &Value) -> &str {
    meta::annotation(claim, CLASS_ANNOTATION).unwrap_or_else(|| meta::str_at(claim, &["spec", "storageClassName"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::tests::{on, world};

    #[tokio::test]
    async fn a_claim_grows_where_its_class_allows_it() {
        let world = world();
        for (name, expands) in [("grows", json!(true)), ("stays", json!(false)), ("silent", Value::Null)] {
            let class = json!({"metadata": {"name": name}, "provisioner": "p", "allowVolumeExpansion": expands});
            world.reader.put("storage.k8s.io", "storageclasses", class);
        }
        let claim = |class: &str, size: &str, phase: &str| {
            json!({"metadata": {"namespace": "a", "name": "c"}, "status": {"phase": phase},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let mut by_annotation = claim("", "1Gi", "Bound");
        meta::set_annotation(&mut by_annotation, CLASS_ANNOTATION, "grows");
        let mut larger = claim("", "2Gi", "Bound");
        meta::set_annotation(&mut larger, CLASS_ANNOTATION, "grows");
        for (old, new, refusal) in [
            (claim("grows", "1Gi", "Bound"), claim("grows", "2Gi", "Bound"), ""),
            (by_annotation, larger, ""),
            (claim("stays", "1Gi", "Bound"), claim("stays", "1024Mi", "Bound"), ""),
            (claim("stays", "2Gi", "Bound"), claim("stays", "1Gi", "Bound"), ""),
            (claim("stays", "1Gi", "Bound"), claim("stays", "1025Mi", "Bound"), NOT_ALLOWED),
            (claim("silent", "1Gi", "Bound"), claim("silent", "2Gi", "Bound"), NOT_ALLOWED),
            (claim("absent", "1Gi", "Bound"), claim("absent", "2Gi", "Bound"), NOT_ALLOWED),
            (claim("", "1Gi", "Bound"), claim("", "2Gi", "Bound"), NOT_ALLOWED),
            (claim("stays", "1Gi", "Bound"), claim("grows", "2Gi", "Bound"), NOT_ALLOWED),
            (claim("grows", "1Gi", "Pending"), claim("grows", "2Gi", "Pending"), NOT_BOUND),
        ] {
            let shown = format!("{old} -> {new}");
            let mut request = on("", "persistentvolumeclaims", "a", Operation::Update, new);
            request.name = "c".to_owned();
            request.old_object = Some(Arc::new(old));
            match world.validate(&request).await {
                Ok(_) => assert_eq!(refusal, "", "{shown}"),
                Err(status) => {
                    let message = format!("persistentvolumeclaims \"c\" is forbidden: {refusal}");
                    assert_eq!((status.code(), status.message.as_str()), (403, message.as_str()), "{shown}");
                }
            }
            request.subresource = "status".to_owned();
            assert!(world.validate(&request).await.is_ok(), "a status does not ask for storage");
        }
    }
}
