//! NodeRestriction's part on service-account tokens: only for the node's own pods, only for audiences that they ask for.

use serde_json::Value;
use trireme_api::{gvk::GroupResource, meta, status::Status};

use crate::admission::find;
use crate::admission::forbid;
use crate::admission::request::{AdmissionRequest, Operation};
use crate::attributes::Attributes;
use crate::authz::Authorizer;
use crate::error::Answer;

/// Runs the check on the `token` subresource.
pub async fn admit(authorizer: &Authorizer, node: &str, request: &AdmissionRequest) -> Answer<()> {
    let (Operation::Create, Some(token)) = (request.operation, request.object()) else {
        return Ok(());
    };
    let reference = &token["spec"]["boundObjectRef"];
    let text = |field: &str| meta::str_at(reference, &[field]);
    if (text("apiVersion"), text("kind")) != ("v1", "Pod") || text("name").is_empty() {
        return Err(forbid(request, "node requested token not bound to a pod"));
    }
    if text("uid").is_empty() {
        return Err(forbid(request, "node requested token with a pod binding without a uid"));
    }
    let reader = &**authorizer.reader();
    let Some(pod) = find(reader, "", "pods", &request.namespace, text("name")).await else {
        return Err(Box::new(Status::not_found(&GroupResource::new("", "pods"), text("name"))));
    };
    let pod = &*pod.object;
    if meta::uid(pod) != text("uid") {
        let text = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(forbid(request, &text));
    }
    if meta::str_at(pod, &["spec", "nodeName"]) != node {
        return Err(forbid(request, "node requested token bound to a pod scheduled on a different node"));
    }
    audience(authorizer, request, pod, token).await
}

async fn audience(authorizer: &Authorizer, request: &AdmissionRequest, pod: &Value, token: &Value) -> Answer<()> {
    let asked = meta::list_at(token, &["spec", "audiences"]);
    let asked = match asked {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(forbid(request, "node may only request 0 or 1 audiences")),
    };
    if in_pod(authorizer, pod, asked) {
        return Ok(());
    }
    let question = Attributes {
        user: request.user.clone(),
        verb: "request-serviceaccounts-token-audience".to_owned(),
        resource_request: true,
        resource: asked.to_owned(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        ..Attributes::default()
    };
    if authorizer.authorize(&question).await.allowed {
        return Ok(());
    }
    Err(forbid(request, &format!("audience {asked:?} not found in pod spec volume")))
}

/// The driver of the volume that a claim of the pod is bound to.
fn driver_of_claim(authorizer: &Authorizer, pod: &Value, volume: &Value) -> Option<String> {
    let named = meta::str_at(volume, &["persistentVolumeClaim", "claimName"]);
    let made = || format!("{}-{}", meta::name(pod), meta::str_at(volume, &["name"]));
    let claim = match (named.is_empty(), volume.get("ephemeral")) {
        (false, _) => named.to_owned(),
        (true, Some(_)) => made(),
        (true, None) => return None,
    };
    let reader = authorizer.reader();
    let claim = reader.get("", "persistentvolumeclaims", meta::namespace(pod), &claim)?;
    let bound = reader.get("", "persistentvolumes", "", meta::str_at(&claim.object, &["spec", "volumeName"]))?;
    let is_its = meta::str_at(&bound.object, &["spec", "claimRef", "uid"]) == meta::uid(&claim.object);
    is_its.then(|| meta::str_at(&bound.object, &["spec", "csi", "driver"]).to_owned())
}

/// Whether a volume of the pod (projected, or of a CSI driver that asks for tokens) wants this audience.
fn in_pod(authorizer: &Authorizer, pod: &Value, audience: &str) -> bool {
    meta::list_at(pod, &["spec", "volumes"]).iter().any(|volume| {
        let projected = meta::list_at(volume, &["projected", "sources"])
            .iter()
            .any(|source| source.get("serviceAccountToken").is_some_and(|t| meta::str_at(t, &["audience"]) == audience));
        let inline = meta::str_at(volume, &["csi", "driver"]).to_owned();
        let driver = if inline.is_empty() { driver_of_claim(authorizer, pod, volume).unwrap_or_default() } else { inline };
        projected
            || (!driver.is_empty()
                && authorizer.reader().get("storage.k8s.io", "csidrivers", "", &driver).is_some_and(|found| {
                    meta::list_at(&found.object, &["spec", "tokenRequests"])
                        .iter()
                        .any(|wanted| meta::str_at(wanted, &["audience"]) == audience)
                }))
    })
}
