//! `pods/binding` and `bindings`: assigns a pod to a node.
//!
//! Answers to upstream's `BindingREST` (`pkg/registry/core/pod/storage/storage.go`).

use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::gvk::{GroupKind, GroupResource, GroupVersionKind};
use trireme_api::status::Status;
use trireme_api::{meta, time};

use crate::admission::request::Operation;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::{self, Body};
use crate::registry::update::UpdateKind;

/// Binds a pod to a node.
pub async fn create(ctx: &Context, name: &str) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.info.query, "CreateOptions")?;
    let binding = ctx.decode(&[GroupVersionKind::new("", "v1", "Binding")], options.field_validation)?.object;
    let name = if name.is_empty() { meta::name(&binding).to_owned() } else { name.to_owned() };
    if meta::name(&binding) != name {
        Err(Status::bad_request(format!("name in URL does not match name in Binding object: {name:?} != {:?}", meta::name(&binding))))?;
    }
    let pods = ctx.server.rows.view("", "pods").ok_or_else(|| Box::new(Status::resource_not_found()))?;
    let mut mutation = ctx.mutation_of(&pods, options.dry_run, options.to_value("CreateOptions"))?;
    mutation.subresource = "binding";
    let mut request = mutation.admission_request(Operation::Create, &name, Some(binding), None);
    request.kind = GroupVersionKind::new("", "v1", "Binding");
    let mut effects = mutation.admit(&mut request).await?;
    // What counts is the binding that admission has made of it: it may have got labels.
    let binding = request.object().cloned().unwrap_or_default();
    let node = target(&binding, &name)?;
    mutation.admit_validating(&request, &mut effects).await?;
    let gr = GroupResource::new("", "pods/binding");
    mutation
        .update(&name, UpdateKind::Special, |_, pod| {
            if !meta::uid(&binding).is_empty() && meta::uid(&binding) != meta::uid(pod) {
                Err(Status::conflict(
                    &gr,
                    &name,
                    &format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", meta::uid(&binding), meta::uid(pod)),
                ))?;
            }
            if meta::deletion_timestamp(pod).is_some() {
                Err(Status::conflict(&gr, &name, &format!("pod {name} is being deleted, cannot be assigned to a host")))?;
            }
            let assigned = meta::str_at(pod, &["spec", "nodeName"]);
            if !assigned.is_empty() {
                Err(Status::conflict(&gr, &name, &format!("pod {name} is already assigned to node {assigned:?}")))?;
            }
            if !meta::list_at(pod, &["spec", "schedulingGates"]).is_empty() {
                Err(Status::conflict(&gr, &name, &format!("pod {name} has non-empty .spec.schedulingGates")))?;
            }
            let mut pod = pod.clone();
            meta::map_at(&mut pod, "spec").insert("nodeName".to_owned(), json!(node));
            for (key, value) in meta::annotations(&binding).into_iter().flatten() {
                meta::set_annotation(&mut pod, key, value.as_str().unwrap_or_default());
            }
            for (key, value) in meta::labels(&binding).into_iter().flatten() {
                meta::set_label(&mut pod, key, value.as_str().unwrap_or_default());
            }
            set_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}));
            // The nomination is obsolete once the pod is bound.
            meta::map_at(&mut pod, "status").remove("nominatedNodeName");
            Ok(pod)
        })
        .await?;
    Ok(respond::status_as(&Status::success_plain(201), ctx.form.encoding))
}

/// The node that a binding names.
fn target(binding: &Value, name: &str) -> Answer<String> {
    let target = FieldPath::new("target");
    let mut errors = Vec::new();
    let kind = meta::str_at(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    let node = meta::str_at(binding, &["target", "name"]);
    if node.is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if !errors.is_empty() {
        Err(Status::invalid(&GroupKind::new("", "Binding"), name, &errors))?;
    }
    Ok(node.to_owned())
}

/// Sets a pod's condition, with the time of its transition.
fn set_condition(pod: &mut Value, mut condition: Value) {
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = json!(time::format(Timestamp::now()));
    let status = meta::map_at(pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => {
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => list.push(condition),
    }
}
