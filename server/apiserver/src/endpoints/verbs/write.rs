//! create and update.

use http::Response;
use trireme_api::meta;
use trireme_api::status::Status;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::Body;
use crate::registry::identity;
use crate::registry::mutation::Mutation;
use crate::registry::update::{UpdateKind, Updated};

/// Answers a create.
pub async fn create(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.info.query, "CreateOptions")?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("CreateOptions"))?;
    let decoded = ctx.decode_object(&mutation.gvk(), options.field_validation)?;
    mutation.warnings.extend(decoded.warnings);
    let object = mutation.create(decoded.object, "").await?;
    mutation.warnings.extend(mutation.row.definition.missing_actor_warning());
    let object = mutation.show(object)?;
    ctx.written(201, object, &mutation.warnings)
}

/// Answers an update of the object or of its status.
pub async fn update(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.info.query, "UpdateOptions")?;
    let mut mutation = ctx.mutation(options.dry_run, options.to_value("UpdateOptions"))?;
    let decoded = ctx.decode_object(&mutation.gvk(), options.field_validation)?;
    mutation.warnings.extend(decoded.warnings);
    let name = meta::name(&decoded.object);
    if name.is_empty() {
        Err(Status::bad_request("name must be provided"))?;
    }
    if name != ctx.info.name {
        Err(Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", ctx.info.name)))?;
    }
    let mut object = mutation.to_storage(decoded.object)?;
    identity::settle_namespace(&mut object, mutation.row.resource.namespaced, mutation.namespace)?;
    let kind = update_kind(ctx);
    let outcome = mutation.update(&ctx.info.name, kind, |_, _| Ok(object.clone())).await;
    match outcome {
        Err(status) if status.code() == 404 && kind == UpdateKind::Main && mutation.row.definition.kind.create_on_update() => {
            // A user who may only update must not create.
            ctx.authorize_verb("create").await?;
            mutation.warnings.clear();
            let created = mutation.create(mutation.show(object)?, &ctx.info.name).await?;
            let created = mutation.show(created)?;
            ctx.written(201, created, &mutation.warnings)
        }
        outcome => finish(ctx, &mutation, outcome?),
    }
}

/// Which part of an object the addressed subresource changes.
pub fn update_kind(ctx: &Context) -> UpdateKind {
    if ctx.info.subresource == "status" { UpdateKind::Part } else { UpdateKind::Main }
}

/// Answers with the updated object.
pub fn finish(ctx: &Context, mutation: &Mutation<'_>, updated: Updated) -> Answer<Response<Body>> {
    let object = mutation.show(updated.object)?;
    ctx.written(if updated.created { 201 } else { 200 }, object, &mutation.warnings)
}
