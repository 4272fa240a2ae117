//! The `scale` subresource: how many replicas there are and should be, for any resource that has them.
//!
//! Answers to upstream's `ScaleREST` (`pkg/registry/apps/*/storage`).

use http::Response;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::gvk::{GroupKind, GroupVersionKind};
use trireme_api::meta;
use trireme_api::resource::{Kind, Scaled, Schema};
use trireme_api::status::Status;

use crate::endpoints::context::Context;
use crate::endpoints::verbs::patch::{Patch, PatchType};
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::{self, Body};
use crate::registry::managers;
use crate::registry::ownership::ScaleChange;
use crate::registry::update::UpdateKind;

fn scale_gvk() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// The numbers of an object, as its kind finds them, in a Scale.
fn scale_of(kind: &dyn Kind, object: &Value) -> Answer<Value> {
    Ok(scale_with(object, &kind.scaled(object).map_err(Status::internal)?))
}

fn scale_with(object: &Value, scaled: &Scaled) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{key}")) {
            metadata[key] = value.clone();
        }
    }
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {},
        "status": {"replicas": scaled.current},
    });
    if let Some(replicas) = scaled.wanted.filter(|n| *n != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    if !scaled.selector.is_empty() {
        scale["status"]["selector"] = json!(scaled.selector);
    }
    scale
}

/// Answers a get.
pub async fn get(ctx: &Context) -> Answer<Response<Body>> {
    let (view, row) = ctx.stored()?;
    ctx.server.storage.refresh(row).await?;
    let stored = ctx
        .server
        .storage
        .read(row, &row.key(&ctx.info.namespace, &ctx.info.name))?
        .ok_or_else(|| Status::not_found(&view.resource.group_resource(), &ctx.info.name))?;
    let gvk = view.resource.gvk(&ctx.info.version).unwrap_or_else(|| row.storage_gvk());
    let object = ctx.server.conversions.one(row, stored.object, &gvk).await?;
    Ok(respond::object(200, ctx.form.encoding, &scale_of(view.definition.kind.as_ref(), &object)?))
}

/// Answers an update or patch.
pub async fn write(ctx: &Context) -> Answer<Response<Body>> {
    let patching = ctx.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::parse(&ctx.info.query, kind)?;
    let sent_patch = if patching { Some(Patch::parse(ctx, &options)?) } else { None };
    let mut mutation = ctx.mutation(options.dry_run, options.to_value(kind))?;
    let sent = if patching { Value::Null } else { ctx.decode(&[scale_gvk()], options.field_validation)?.object };
    if !patching && meta::name(&sent) != ctx.info.name {
        Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(&sent),
            ctx.info.name
        )))?;
    }
    let updated = mutation
        .update(&ctx.info.name, UpdateKind::Main, |mutation, existing| {
            let rules = mutation.definition().kind.clone();
            let live = match scale_of(rules.as_ref(), existing) {
                // The object has no replicas yet: this update sets them.
                Err(_) if sent_patch.is_none() => scale_with(existing, &Scaled::default()),
                shown => shown?,
            };
            let change = match &sent_patch {
                Some(Patch { kind: PatchType::Apply, document, force, warnings, .. }) => {
                    mutation.warnings.clone_from(warnings);
                    ScaleChange::Apply { configuration: document, force: *force }
                }
                Some(patch) => ScaleChange::Update(patch.patched(live.clone(), &Schema::Builtin, &scale_gvk())?.0),
                None => ScaleChange::Update(sent.clone()),
            };
            let (scale, managers) = mutation.change_scale(&scale_gvk(), existing, live, change)?;
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
            rules.scale(&mut object, replicas);
            managers::put_managers(&mut object, managers);
            Ok(object)
        })
        .await?;
    let mut response = respond::object(200, ctx.form.encoding, &scale_of(mutation.definition().kind.as_ref(), &updated.object)?);
    respond::add_warnings(&mut response, &mutation.warnings);
    Ok(response)
}
