//! Resources without storage: reviews, whose posted object comes back with its answer, and what else is never stored.

use http::Response;
use jiff::Timestamp;
use serde_json::json;
use trireme_api::meta;

use crate::authn;
use crate::authz;
use crate::endpoints::context::Context;
use crate::endpoints::pods::binding;
use crate::error::Answer;
use crate::http::query::WriteOptions;
use crate::http::respond::{self, Body, method_not_allowed};

/// Answers a request for a resource without storage.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    let view = ctx.view()?;
    let resource = view.resource.plural.to_string();
    if resource == "bindings" {
        return binding::create(ctx, "").await;
    }
    if resource == "componentstatuses" {
        return component_statuses(ctx);
    }
    let gvk = view.resource.gvk(&ctx.info.version).ok_or_else(method_not_allowed)?;
    let options = WriteOptions::parse(&ctx.info.query, "CreateOptions")?;
    let decoded = ctx.decode(&[gvk], options.field_validation)?;
    let (security, review) = (&ctx.server.security, decoded.object);
    let mut answer = match resource.as_str() {
        "subjectaccessreviews" => authz::review::subject(&security.authorizer, review).await?,
        "localsubjectaccessreviews" => authz::review::local_subject(&security.authorizer, &ctx.info.namespace, review).await?,
        "selfsubjectaccessreviews" => authz::review::own(&security.authorizer, &ctx.user, review).await?,
        "selfsubjectrulesreviews" => authz::review::rules(&security.authorizer, &ctx.user, review)?,
        "tokenreviews" => authn::review::token(&security.authenticator, review, Timestamp::now()).await?,
        "selfsubjectreviews" => authn::review::own(&ctx.user, review, Timestamp::now()),
        _ => return Err(method_not_allowed()),
    };
    meta::metadata_mut(&mut answer);
    let mut response = respond::object(201, ctx.form.encoding, &answer);
    respond::add_warnings(&mut response, &decoded.warnings);
    Ok(response)
}

/// ComponentStatus is deprecated: there are no separate components to report on.
fn component_statuses(ctx: &Context) -> Answer<Response<Body>> {
    if ctx.info.verb != "list" {
        return Err(trireme_api::status::Status::not_found(&ctx.view()?.resource.group_resource(), &ctx.info.name).into());
    }
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": []});
    let mut response = respond::object(200, ctx.form.encoding, &list);
    respond::add_warnings(&mut response, &["v1 ComponentStatus is deprecated in v1.19+".to_owned()]);
    Ok(response)
}
