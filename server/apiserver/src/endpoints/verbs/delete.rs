//! delete and deletecollection.

use futures::StreamExt;
use http::Response;
use serde_json::{Value, json};
use trireme_api::gvk::GroupVersionKind;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::catalog::transform;
use crate::endpoints::context::Context;
use crate::endpoints::verbs::read;
use crate::error::Answer;
use crate::http::query::{DeleteOptions, ListOptions};
use crate::http::respond::{self, Body};
use crate::http::selection::Selection;
use crate::registry::delete::{Cause, Deleted};

/// How many objects deletecollection deletes at once.
const COLLECTION_WORKERS: usize = 8;

/// The DeleteOptions of a request.
pub fn delete_options(ctx: &Context) -> Answer<DeleteOptions> {
    let body = ctx.document()?;
    if let Some(given) = body.as_ref().and_then(meta::gvk).filter(|gvk| !gvk.kind.is_empty()) {
        let kinds = [
            GroupVersionKind::new("", "v1", "DeleteOptions"),
            GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions"),
            GroupVersionKind::new(ctx.info.group.clone(), ctx.info.version.clone(), "DeleteOptions"),
        ];
        if !kinds.contains(&given) {
            Err(Status::bad_request(format!("decoded object cannot be converted to DeleteOptions: {given}")))?;
        }
    }
    DeleteOptions::parse(&ctx.info.query, body.as_ref())
}

/// Answers a delete.
pub async fn one(ctx: &Context) -> Answer<Response<Body>> {
    let options = delete_options(ctx)?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value())?;
    let deleted = mutation.delete(&ctx.info.name, &options, &Cause::Delete).await?;
    let gr = mutation.group_resource();
    match deleted {
        Deleted::Gone(object) if !mutation.row.definition.kind.returns_deleted() => {
            let mut response = respond::status_as(&Status::success(&gr, &ctx.info.name, meta::uid(&object)), ctx.form.encoding);
            respond::add_warnings(&mut response, &mutation.warnings);
            Ok(response)
        }
        Deleted::Gone(object) | Deleted::Pending(object) => {
            let object = mutation.show(object)?;
            ctx.written(200, object, &mutation.warnings)
        }
    }
}

/// Answers a deletecollection: every selected object is deleted by itself. With a `limit`, this is one page: the answer says where
/// the next one begins.
pub async fn collection(ctx: &Context) -> Answer<Response<Body>> {
    let options = delete_options(ctx)?;
    let list = ListOptions::parse(&ctx.info.query, false)?;
    let (view, row) = ctx.stored()?;
    let selection = Selection::parse(view, &ctx.info.version, &list.label_selector, &list.field_selector)?;
    let found = read::find(ctx, view, row, &list, &selection).await?;
    let metadata = found.metadata();
    let results: Vec<Answer<Value>> = futures::stream::iter(found.objects)
        .map(|object| {
            let options = &options;
            async move {
                let mut mutation = ctx.mutation(options.dry_run, options.to_value())?;
                mutation.namespace = &object.namespace;
                match mutation.delete(&object.name, options, &Cause::Delete).await {
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
        if view.definition.schema.is_typed() {
            transform::strip_type(&mut item);
        }
        items.push(item);
    }
    let gvk = view.resource.gvk(&ctx.info.version).unwrap_or_else(|| row.storage_gvk());
    let list = json!({
        "kind": &*view.resource.list_kind,
        "apiVersion": gvk.api_version(),
        "metadata": metadata,
        "items": items,
    });
    Ok(respond::object(200, ctx.form.encoding, &list))
}
