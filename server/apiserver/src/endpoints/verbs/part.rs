//! Subresources that carry the whole object and change a part of it: finalize, approval, ephemeral containers, resize.

use http::Response;
use serde_json::Value;

use crate::endpoints::context::Context;
use crate::endpoints::verbs::patch::Patch;
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::Body;
use crate::registry::identity;
use crate::registry::update::UpdateKind;

/// Updates one part of an object; everything else stays.
pub async fn write(ctx: &Context) -> Answer<Response<Body>> {
    let patching = ctx.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let options = WriteOptions::parse(&ctx.info.query, kind)?;
    let sent_patch = if patching { Some(Patch::parse(ctx, &options)?) } else { None };
    let mut mutation = ctx.mutation(options.dry_run, options.to_value(kind))?;
    let sent = match sent_patch {
        Some(_) => Value::Null,
        None => {
            let decoded = ctx.decode_object(&mutation.gvk(), options.field_validation)?;
            mutation.warnings.extend(decoded.warnings);
            decoded.object
        }
    };
    let updated = mutation
        .update(&ctx.info.name, UpdateKind::Part, |mutation, existing| {
            if let Some(patch) = &sent_patch {
                return patch.apply(mutation, existing);
            }
            let mut object = mutation.to_storage(sent.clone())?;
            identity::settle_namespace(&mut object, mutation.row.resource.namespaced, mutation.namespace)?;
            Ok(object)
        })
        .await?;
    let object = mutation.show(updated.object)?;
    ctx.written(200, object, &mutation.warnings)
}
