//! create, update, patch, delete, deletecollection.

use http::Response;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, FieldPath};
use trireme_api::gvk::{GroupKind, GroupVersionKind};
use trireme_api::meta;
use trireme_api::patch;
use trireme_api::protobuf;
use trireme_api::schema::{self, FieldValidation};
use trireme_api::status::Status;

use super::{Context, unsupported_media_type, written};
use crate::admission_request::AdmissionEffects;
use crate::error::Answer;
use crate::pending_kinds;
use crate::query::{DeleteOptions, ListOptions, WriteOptions};
use crate::registry::delete::{Deleted, returns_object};
use crate::registry::pipeline::Mutation;
use crate::registry::update::{UpdateKind, Updated};
use crate::respond::{self, Body};
use crate::selection::Selection;
use crate::transform;

/// How many objects deletecollection deletes at once.
const COLLECTION_WORKERS: usize = 8;

/// Answers a create.
pub async fn create(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.query, "CreateOptions")?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("CreateOptions"))?;
    if mutation.view.resource.namespaced && ctx.info.namespace.is_empty() {
        Err(Status::bad_request("namespace is required"))?;
    }
    let decoded = ctx.decode(&[mutation.gvk()], options.field_validation)?;
    mutation.warnings.extend(decoded.warnings);
    let object = mutation.create(decoded.object, "").await?;
    if let Some(text) = pending_kinds::warning(mutation.row.group(), mutation.row.plural()) {
        mutation.warnings.push(text);
    }
    let object = mutation.show(object)?;
    written(ctx, 201, object, &mutation.warnings)
}

/// Answers an update of the object or of its status.
pub async fn update(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.query, "UpdateOptions")?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("UpdateOptions"))?;
    let decoded = ctx.decode(&[mutation.gvk()], options.field_validation)?;
    mutation.warnings.extend(decoded.warnings);
    let name = meta::name(&decoded.object);
    if name.is_empty() {
        Err(Status::bad_request("name must be provided"))?;
    }
    if name != ctx.info.name {
        Err(Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", ctx.info.name)))?;
    }
    let mut object = mutation.to_storage(decoded.object)?;
    crate::registry::identity::settle_namespace(&mut object, mutation.row.resource.namespaced, mutation.namespace)?;
    let kind = update_kind(ctx);
    let outcome = mutation.update(&ctx.info.name, kind, |_, _| Ok(object.clone())).await;
    match outcome {
        Err(status) if status.code() == 404 && kind == UpdateKind::Main && mutation.strategy().allow_create_on_update() => {
            mutation.warnings.clear();
            let created = mutation.create(mutation.show(object)?, &ctx.info.name).await?;
            let created = mutation.show(created)?;
            written(ctx, 201, created, &mutation.warnings)
        }
        outcome => finish(ctx, &mutation, outcome?),
    }
}

fn update_kind(ctx: &Context) -> UpdateKind {
    if ctx.info.subresource == "status" { UpdateKind::Status } else { UpdateKind::Main }
}

fn finish(ctx: &Context, mutation: &Mutation<'_>, updated: Updated) -> Answer<Response<Body>> {
    let object = mutation.show(updated.object)?;
    written(ctx, if updated.created { 201 } else { 200 }, object, &mutation.warnings)
}

/// The patch formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by merge keys.
    Strategic,
}

/// Reads the patch format from the content type.
pub fn patch_type(ctx: &Context) -> Answer<PatchType> {
    match ctx.content_type() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            if WriteOptions::parse(&ctx.query, "PatchOptions")?.field_manager.is_empty() {
                let errors = vec![FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch")];
                Err(Status::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", &errors))?;
            }
            // Answered plainly rather than with a merge that would lose fields: apply arrives with managed fields.
            Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ])
            .into())
        }
        _ => Err(unsupported_media_type()),
    }
}

/// Answers a patch of the object or of its status.
pub async fn patch(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.query, "PatchOptions")?;
    let kind = patch_type(ctx)?;
    if options.force {
        let errors = vec![FieldError::forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch")];
        Err(Status::invalid(&GroupKind::new("meta.k8s.io", "PatchOptions"), "", &errors))?;
    }
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("PatchOptions"))?;
    let patch = parse_patch(ctx)?;
    let updated = mutation
        .update(&ctx.info.name, update_kind(ctx), |mutation, existing| {
            let gvk = mutation.gvk();
            let shown = mutation.show(existing.clone())?;
            let (patched, warnings) = apply_patch(kind, &patch, shown, &gvk, options.field_validation)?;
            mutation.warnings = warnings;
            if meta::name(&patched) != meta::name(existing) && kind != PatchType::Strategic && meta::name(&patched).is_empty() {
                Err(Status::bad_request("name must be provided"))?;
            }
            let mut object = mutation.to_storage(patched)?;
            crate::registry::identity::settle_namespace(&mut object, mutation.row.resource.namespaced, mutation.namespace)?;
            Ok(object)
        })
        .await?;
    finish(ctx, &mutation, updated)
}

/// The patch document.
pub fn parse_patch(ctx: &Context) -> Answer<Value> {
    serde_json::from_slice(&ctx.body).map_err(|e| Box::new(Status::bad_request(format!("error decoding patch: {e}"))))
}

/// Applies a patch and makes the result fit its type again.
pub fn apply_patch(
    kind: PatchType,
    document: &Value,
    object: Value,
    gvk: &GroupVersionKind,
    validation: FieldValidation,
) -> Answer<(Value, Vec<String>)> {
    let mut patched = object;
    match kind {
        PatchType::Json => patch::json_patch(&mut patched, document),
        PatchType::Merge => patch::merge_patch(&mut patched, document),
        PatchType::Strategic => {
            let Some(ty) = schema::type_of(&gvk.group, &gvk.version, &gvk.kind) else {
                return Err(Status::internal(format!("no schema for {gvk}")).into());
            };
            patch::strategic_merge_patch(ty, &mut patched, document)
        }
    }
    .map_err(|e| e.to_status())?;
    let decoded = patch::decode_result(patched, gvk, validation)?;
    Ok((decoded.object, decoded.warnings))
}

/// The DeleteOptions of a request.
pub fn delete_options(ctx: &Context) -> Answer<DeleteOptions> {
    let body = if ctx.body.is_empty() {
        None
    } else {
        let kinds = [
            GroupVersionKind::new("", "v1", "DeleteOptions"),
            GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions"),
            GroupVersionKind::new(ctx.info.group.clone(), ctx.info.version.clone(), "DeleteOptions"),
        ];
        let body: Value = match ctx.content_type() {
            "" | "application/json" => schema::parse_json(&ctx.body).map_err(Status::bad_request)?,
            "application/yaml" => schema::parse_yaml(&ctx.body).map_err(Status::bad_request)?,
            protobuf::CONTENT_TYPE => protobuf::decode(&ctx.body).map_err(|e| Status::bad_request(e.to_string()))?,
            _ => return Err(unsupported_media_type()),
        };
        if let Some(given) = meta::gvk(&body).filter(|g| !g.kind.is_empty())
            && !kinds.contains(&given)
        {
            Err(Status::bad_request(format!("decoded object cannot be converted to DeleteOptions: {given}")))?;
        }
        Some(body)
    };
    DeleteOptions::parse(&ctx.query, body.as_ref())
}

/// Answers a delete.
pub async fn delete(ctx: &Context) -> Answer<Response<Body>> {
    let options = delete_options(ctx)?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value())?;
    let deleted = mutation.delete(&ctx.info.name, &options, &AdmissionEffects::default()).await?;
    let gr = mutation.group_resource();
    match deleted {
        Deleted::Gone(object) if !returns_object(&gr.group, &gr.resource) => {
            let mut response = respond::status_as(&Status::success(&gr, &ctx.info.name, meta::uid(&object)), ctx.form.encoding);
            respond::add_warnings(&mut response, &mutation.warnings);
            Ok(response)
        }
        Deleted::Gone(object) | Deleted::Pending(object) => {
            let object = mutation.show(object)?;
            written(ctx, 200, object, &mutation.warnings)
        }
    }
}

/// Answers a deletecollection: every selected object is deleted by itself.
pub async fn delete_collection(ctx: &Context) -> Answer<Response<Body>> {
    use futures::StreamExt;
    let options = delete_options(ctx)?;
    let list = ListOptions::parse(&ctx.query, false)?;
    let (view, row) = ctx.stored()?;
    let selection = Selection::parse(view, &ctx.info.version, &list.label_selector, &list.field_selector)?;
    ctx.server.registry.refresh(row).await?;
    let prefix = row.scope_prefix(&ctx.info.namespace);
    let (objects, revision) = row.cache.list(&prefix, ctx.server.registry.cache.ingested(), |o| selection.matches(view, row, o));
    let results: Vec<Answer<Value>> = futures::stream::iter(objects)
        .map(|object| {
            let options = &options;
            async move {
                let mut mutation = ctx.mutation(options.dry_run, options.to_value())?;
                mutation.namespace = &object.namespace;
                match mutation.delete(&object.name, options, &AdmissionEffects::default()).await {
                    Ok(_) => {}
                    Err(status) if status.code() == 404 => {}
                    Err(status) => return Err(status),
                }
                let value: Value = serde_json::from_slice(&object.json()).map_err(Status::internal)?;
                transform::to_version(view, &ctx.info.version, value)
            }
        })
        .buffered(COLLECTION_WORKERS)
        .collect()
        .await;
    let mut items = Vec::with_capacity(results.len());
    for result in results {
        let mut item = result?;
        crate::convert::strip_type(&mut item);
        items.push(item);
    }
    let gvk = view.resource.gvk(&ctx.info.version).unwrap_or_else(|| row.storage_gvk());
    let list = json!({
        "kind": &*view.resource.list_kind,
        "apiVersion": gvk.api_version(),
        "metadata": {"resourceVersion": revision.to_string()},
        "items": items,
    });
    Ok(respond::object(200, ctx.form.encoding, &list))
}
