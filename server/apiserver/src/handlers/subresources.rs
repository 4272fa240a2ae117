//! Parts and actions of objects: status, scale, binding, eviction, token, finalize, approval, ephemeral containers.

use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind};
use trireme_api::selector::LabelSelector;
use trireme_api::status::{Status, StatusDetails};
use trireme_api::{meta, time};

use super::{Context, connect, method_not_allowed, read, write, written};
use crate::admission_request::{AdmissionEffects, Operation};
use crate::authn::token_request;
use crate::error::Answer;
use crate::keys;
use crate::lookup::ObjectReader;
use crate::query::{DeleteOptions, WriteOptions};
use crate::registry::update::UpdateKind;
use crate::respond::{self, Body};

/// Most pods that a disruption budget remembers as being disrupted.
const MAX_DISRUPTED_PODS: usize = 2000;

/// Answers a request for a subresource that exists and has the verb.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    let info = &ctx.info;
    match (info.resource.as_str(), info.subresource.as_str(), info.verb.as_str()) {
        (_, "scale", "get") => scale_get(ctx).await,
        (_, "scale", "update" | "patch") => scale_write(ctx).await,
        ("pods", "binding", "create") => binding(ctx, &info.name).await,
        ("pods", "eviction", "create") => eviction(ctx).await,
        ("serviceaccounts", "token", "create") => token(ctx).await,
        ("pods" | "nodes" | "services", "log" | "exec" | "attach" | "portforward" | "proxy", _) => connect::answer(ctx).await,
        (_, _, "get") => read::get(ctx).await,
        (_, "status", "update") => write::update(ctx).await,
        (_, "status", "patch") => write::patch(ctx).await,
        (_, "finalize" | "approval" | "ephemeralcontainers" | "resize", "update" | "patch") => part(ctx).await,
        _ => Err(method_not_allowed()),
    }
}

/// Updates one part of an object; everything else stays.
async fn part(ctx: &Context) -> Answer<Response<Body>> {
    let kind = if ctx.info.verb == "patch" { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::parse(&ctx.query, kind)?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value(kind))?;
    let gvk = mutation.gvk();
    let patch = match ctx.info.verb.as_str() {
        "patch" => Some((write::patch_type(ctx)?, write::parse_patch(ctx)?)),
        _ => None,
    };
    let sent = match patch {
        Some(_) => Value::Null,
        None => {
            let decoded = ctx.decode(std::slice::from_ref(&gvk), options.field_validation)?;
            mutation.warnings.extend(decoded.warnings);
            decoded.object
        }
    };
    let subresource = ctx.info.subresource.clone();
    let updated = mutation
        .update(&ctx.info.name, UpdateKind::Part, |mutation, existing| {
            let new = match &patch {
                Some((kind, document)) => {
                    let shown = mutation.show(existing.clone())?;
                    write::apply_patch(*kind, document, shown, &gvk, options.field_validation)?.0
                }
                None => sent.clone(),
            };
            Ok(merge_part(&subresource, existing, &new))
        })
        .await?;
    let object = mutation.show(updated.object)?;
    written(ctx, 200, object, &mutation.warnings)
}

/// `existing` with the part that `subresource` owns taken from `new`.
fn merge_part(subresource: &str, existing: &Value, new: &Value) -> Value {
    let mut object = existing.clone();
    meta::set_resource_version(&mut object, meta::resource_version(new));
    if !meta::uid(new).is_empty() {
        meta::set_uid(&mut object, meta::uid(new));
    }
    let take = |object: &mut Value, section: &str, key: &str| match meta::get(new, &[section, key]) {
        Some(value) => {
            meta::map_at(object, section).insert(key.to_owned(), value.clone());
        }
        None => {
            meta::map_at(object, section).remove(key);
        }
    };
    match subresource {
        "finalize" => take(&mut object, "spec", "finalizers"),
        "ephemeralcontainers" => take(&mut object, "spec", "ephemeralContainers"),
        "approval" => {
            take(&mut object, "status", "conditions");
            stamp_conditions(&mut object, existing);
        }
        "resize" => {
            for list in ["containers", "initContainers"] {
                let wanted = meta::list_at(new, &["spec", list]).to_vec();
                let Some(own) = object.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) else { continue };
                for container in own {
                    let Some(other) = wanted.iter().find(|w| w.get("name") == container.get("name")) else { continue };
                    for key in ["resources", "resizePolicy"] {
                        if let Some(value) = other.get(key) {
                            container[key] = value.clone();
                        }
                    }
                }
            }
        }
        _ => {}
    }
    object
}

/// Times of new or changed conditions of a certificate signing request.
fn stamp_conditions(object: &mut Value, existing: &Value) {
    let now = time::format(Timestamp::now());
    let before = meta::list_at(existing, &["status", "conditions"]).to_vec();
    let Some(conditions) = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    for condition in conditions {
        let old = before.iter().find(|b| b["type"] == condition["type"]);
        let missing = |c: &Value, key: &str| c.get(key).is_none_or(Value::is_null);
        if missing(condition, "lastUpdateTime") {
            condition["lastUpdateTime"] = json!(now);
        }
        if missing(condition, "lastTransitionTime") {
            let kept = old.filter(|o| o["status"] == condition["status"]).map(|o| o["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = kept.filter(|t| !t.is_null()).unwrap_or_else(|| json!(now));
        }
    }
}

// === scale ===

fn scale_gvk() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{key}")) {
            metadata[key] = value.clone();
        }
    }
    let selector = match object.pointer("/spec/selector") {
        Some(selector) if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() => {
            LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default()
        }
        // Replication controllers have a plain map.
        Some(Value::Object(map)) => LabelSelector::from_map(map).to_string(),
        _ => String::new(),
    };
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {},
        "status": {"replicas": meta::i64_at(object, &["status", "replicas"]).unwrap_or(0)},
    });
    if let Some(replicas) = meta::i64_at(object, &["spec", "replicas"]).filter(|n| *n != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

async fn scale_get(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    ctx.server.registry.refresh(row).await?;
    let stored = ctx
        .server
        .registry
        .read(row, &row.key(&ctx.info.namespace, &ctx.info.name))?
        .ok_or_else(|| Status::not_found(&view.resource.group_resource(), &ctx.info.name))?;
    Ok(respond::object(200, ctx.form.encoding, &scale_of(&stored.object)))
}

async fn scale_write(ctx: &Context) -> Answer<Response<Body>> {
    let patching = ctx.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::parse(&ctx.query, kind)?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value(kind))?;
    let patch = if patching { Some((write::patch_type(ctx)?, write::parse_patch(ctx)?)) } else { None };
    let sent = if patching { Value::Null } else { ctx.decode(&[scale_gvk()], options.field_validation)?.object };
    if !patching && meta::name(&sent) != ctx.info.name {
        Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(&sent),
            ctx.info.name
        )))?;
    }
    let updated = mutation
        .update(&ctx.info.name, UpdateKind::Main, |_, existing| {
            let scale = match &patch {
                Some((kind, document)) => {
                    write::apply_patch(*kind, document, scale_of(existing), &scale_gvk(), options.field_validation)?.0
                }
                None => sent.clone(),
            };
            let replicas = meta::i64_at(&scale, &["spec", "replicas"]).unwrap_or(0);
            if replicas < 0 {
                let error = FieldError::invalid(&FieldPath::new("spec").child("replicas"), replicas, "must be greater than or equal to 0");
                Err(Status::invalid(&GroupKind::new("autoscaling", "Scale"), &ctx.info.name, &vec![error]))?;
            }
            let mut object = existing.clone();
            let version = meta::resource_version(&scale);
            if !version.is_empty() {
                meta::set_resource_version(&mut object, version);
            }
            if !meta::uid(&scale).is_empty() {
                meta::set_uid(&mut object, meta::uid(&scale));
            }
            meta::map_at(&mut object, "spec").insert("replicas".to_owned(), json!(replicas));
            Ok(object)
        })
        .await?;
    let mut response = respond::object(200, ctx.form.encoding, &scale_of(&updated.object));
    respond::add_warnings(&mut response, &mutation.warnings);
    Ok(response)
}

// === binding ===

/// Binds a pod to a node.
pub async fn binding(ctx: &Context, name: &str) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.query, "CreateOptions")?;
    let binding = ctx.decode(&[GroupVersionKind::new("", "v1", "Binding")], options.field_validation)?.object;
    let name = if name.is_empty() { meta::name(&binding).to_owned() } else { name.to_owned() };
    if meta::name(&binding) != name {
        Err(Status::bad_request(format!("name in URL does not match name in Binding object: {name:?} != {:?}", meta::name(&binding))))?;
    }
    let target = FieldPath::new("target");
    let mut errors = Vec::new();
    let kind = meta::str_at(&binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    let node = meta::str_at(&binding, &["target", "name"]).to_owned();
    if node.is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if !errors.is_empty() {
        Err(Status::invalid(&GroupKind::new("", "Binding"), &name, &errors))?;
    }
    let pods = ctx.server.rows.view("", "pods").ok_or_else(|| Box::new(Status::resource_not_found()))?;
    let mut mutation = ctx.mutation_of(&pods, options.dry_run, options.to_value("CreateOptions"))?;
    mutation.subresource = "binding";
    let mut request = mutation.admission_request(Operation::Create, &name, Some(binding.clone()), None);
    request.kind = GroupVersionKind::new("", "v1", "Binding");
    let mut effects = AdmissionEffects::default();
    mutation.admit(&mut request, &mut effects).await?;
    mutation.admit_validating(&mut request, &mut effects).await?;
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
            set_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}));
            Ok(pod)
        })
        .await?;
    Ok(respond::status_as(&Status::success_plain(201), ctx.form.encoding))
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

// === eviction ===

async fn eviction(ctx: &Context) -> Answer<Response<Body>> {
    let write = WriteOptions::parse(&ctx.query, "CreateOptions")?;
    let eviction = ctx.decode(&[GroupVersionKind::new("policy", "v1", "Eviction")], write.field_validation)?.object;
    let name = &ctx.info.name;
    if !meta::name(&eviction).is_empty() && meta::name(&eviction) != name {
        Err(Status::bad_request("name in URL does not match name in Eviction object"))?;
    }
    let mut options = DeleteOptions::parse("", eviction.get("deleteOptions"))?;
    options.dry_run |= write.dry_run;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value())?;
    let row = mutation.row.clone();
    const ATTEMPTS: usize = 16;
    for attempt in 1..=ATTEMPTS {
        ctx.server.registry.refresh(&row).await?;
        let pod = ctx
            .server
            .registry
            .read(&row, &row.key(&ctx.info.namespace, name))?
            .ok_or_else(|| Status::not_found(&mutation.group_resource(), name))?;
        let budget = if ignores_budget(&pod.object) { AdmissionEffects::default() } else { budget_effects(ctx, &pod.object).await? };
        let guarded = !budget.compares.is_empty();
        match mutation.delete(name, &options, &budget).await {
            Ok(_) => return Ok(respond::status_as(&Status::success_plain(201), ctx.form.encoding)),
            // The budget or the pod changed meanwhile: look again.
            Err(status)
                if guarded && status.code() == 409 && attempt < ATTEMPTS && options.uid.is_none() && options.resource_version.is_none() => {
            }
            Err(status) => return Err(status),
        }
    }
    Err(Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10).into())
}

fn ignores_budget(pod: &Value) -> bool {
    meta::deletion_timestamp(pod).is_some() || matches!(meta::str_at(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Value) -> bool {
    meta::list_at(pod, &["status", "conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The compare and the write of the one budget that covers the pod: both join the pod's own transaction.
async fn budget_effects(ctx: &Context, pod: &Value) -> Answer<AdmissionEffects> {
    let namespace = &ctx.info.namespace;
    let mut effects = AdmissionEffects::default();
    let mut matching = Vec::new();
    for budget in ctx.server.registry.list("policy", "poddisruptionbudgets", Some(namespace)) {
        let selector = budget.object.pointer("/spec/selector").cloned().unwrap_or(Value::Null);
        if selector.is_null() {
            continue;
        }
        if LabelSelector::from_object(&selector).is_ok_and(|s| s.matches(meta::labels(pod))) {
            matching.push(budget);
        }
    }
    if matching.len() > 1 {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::internal(message).into());
    }
    let Some(budget) = matching.pop() else { return Ok(effects) };
    let mut object = (*budget.object).clone();
    let name = meta::name(&object).to_owned();
    let status_number = |key: &str| meta::i64_at(&budget.object, &["status", key]).unwrap_or(0);
    if status_number("observedGeneration") < meta::generation(&object) {
        return Err(refused(&format!("The disruption budget {name} is still being processed by the server."), 10));
    }
    let (allowed, healthy, desired) =
        (status_number("disruptionsAllowed"), status_number("currentHealthy"), status_number("desiredHealthy"));
    if !is_ready(pod) {
        let always = meta::str_at(&object, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        if always || (healthy >= desired && desired > 0) {
            // An unhealthy pod costs the budget nothing, as long as the budget stays what it is.
            effects
                .compares
                .push(keys::unchanged(&keys::object_key("policy", "poddisruptionbudgets", namespace, &name), budget.mod_revision));
            return Ok(effects);
        }
    }
    let gr = GroupResource::new("policy", "poddisruptionbudget");
    if allowed < 0 {
        return Err(Status::forbidden(&gr, &name, "pdb disruptions allowed is negative").into());
    }
    let disrupted = object.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if disrupted > MAX_DISRUPTED_PODS {
        return Err(Status::forbidden(&gr, &name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller").into());
    }
    if allowed == 0 {
        return Err(refused(&format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"), 0));
    }
    let status = meta::map_at(&mut object, "status");
    status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
    let pods = status.entry("disruptedPods").or_insert_with(|| json!({}));
    pods[meta::name(pod)] = json!(time::format(Timestamp::now()));
    let row = ctx.server.rows.row("policy", "poddisruptionbudgets").ok_or_else(|| Box::new(Status::resource_not_found()))?;
    let key = row.key(namespace, &name);
    effects.compares.push(keys::unchanged(&key, budget.mod_revision));
    effects.ops.push(ctx.server.registry.put_operation(&row, &key, &object, 0)?);
    Ok(effects)
}

/// 429 with the cause that drain tools look for.
fn refused(cause: &str, retry_after_secs: u16) -> Box<Status> {
    let mut status = Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", retry_after_secs);
    status.details.get_or_insert_with(StatusDetails::default);
    Box::new(status.with_cause("DisruptionBudget", cause, ""))
}

// === token ===

async fn token(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.query, "CreateOptions")?;
    let kind = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let view = ctx.view()?;
    let kind = view
        .resource
        .subresource("token")
        .map_or(kind, |sub| sub.gvk(&GroupVersion::new(ctx.info.group.clone(), ctx.info.version.clone())));
    let mut request = ctx.decode(std::slice::from_ref(&kind), options.field_validation)?.object;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("CreateOptions"))?;
    let mut admission = mutation.admission_request(Operation::Create, &ctx.info.name, Some(request), None);
    admission.kind = kind;
    let mut effects = AdmissionEffects::default();
    mutation.admit(&mut admission, &mut effects).await?;
    mutation.admit_validating(&mut admission, &mut effects).await?;
    request = admission.object.take().unwrap_or_default();
    let id = uuid::Uuid::new_v4().to_string();
    let tokens = ctx.server.security.authenticator.tokens();
    let answer = token_request::create(tokens, &ctx.info.namespace, &ctx.info.name, request, &id, Timestamp::now()).await?;
    Ok(respond::object(201, ctx.form.encoding, &answer))
}
