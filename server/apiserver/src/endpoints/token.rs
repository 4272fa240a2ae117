//! The `token` subresource of service accounts.

use http::Response;
use jiff::Timestamp;
use trireme_api::gvk::{GroupVersion, GroupVersionKind};

use crate::admission::request::Operation;
use crate::authn::token_request;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::{self, Body};

/// Issues a token.
pub async fn create(ctx: &Context) -> Answer<Response<Body>> {
    let options = WriteOptions::parse(&ctx.info.query, "CreateOptions")?;
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
    let mut effects = mutation.admit(&mut admission).await?;
    mutation.admit_validating(&admission, &mut effects).await?;
    request = admission.take_object();
    let id = uuid::Uuid::new_v4().to_string();
    let tokens = ctx.server.security.authenticator.tokens();
    let answer = token_request::create(tokens, &ctx.info.namespace, &ctx.info.name, request, &id, Timestamp::now()).await?;
    Ok(respond::object(201, ctx.form.encoding, &answer))
}
