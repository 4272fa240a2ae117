//! NamespaceLifecycle: nothing is created in a namespace that does not exist or is going away.
//!
//! The namespace's revision joins the object's transaction as a compare, so a create cannot slip in behind the
//! change to Terminating: the namespace controller may rely on an empty namespace staying empty.

use trireme_api::{gvk::GroupResource, meta, status::Status};

use super::{find, forbid};
use crate::{
    admission_request::{AdmissionEffects, AdmissionRequest, Operation},
    error::Answer,
    keys,
    lookup::ObjectReader,
};

/// Namespaces that may not be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Runs the plugin.
pub async fn admit(reader: &dyn ObjectReader, request: &AdmissionRequest) -> Answer<AdmissionEffects> {
    let mut effects = AdmissionEffects::default();
    let on_namespaces = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    if on_namespaces {
        let delete = request.operation == Operation::Delete && request.subresource.is_empty();
        if delete && IMMORTAL.contains(&request.name.as_str()) {
            return Err(forbid(request, "this namespace may not be deleted"));
        }
        return Ok(effects);
    }
    let namespace = request.namespace.as_str();
    let exempt = request.resource.group == "authorization.k8s.io";
    if namespace.is_empty() || exempt || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(effects);
    }
    let Some(found) = find(reader, "", "namespaces", "", namespace).await else {
        return Err(Box::new(Status::not_found(&GroupResource::new("", "namespaces"), namespace)));
    };
    if request.operation != Operation::Create {
        return Ok(effects);
    }
    let terminating =
        meta::str_at(&found.object, &["status", "phase"]) == "Terminating" || meta::deletion_timestamp(&found.object).is_some();
    if terminating {
        let text = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let refused = forbid(request, &text).with_cause("NamespaceTerminating", cause, "metadata.namespace");
        return Err(Box::new(refused));
    }
    if !request.dry_run {
        effects.compares.push(keys::unchanged(&keys::object_key("", "namespaces", "", namespace), found.mod_revision));
    }
    Ok(effects)
}
