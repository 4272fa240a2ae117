//! Answers authorized requests: the verbs on resources, subresources, connections, and the other paths.
//!
//! Owns which endpoint answers a request. Endpoints read the request as the filters prepared it ([`context::Context`]) and pass writes
//! to the registry; they contain no rules of kinds.

pub mod connect;
pub mod context;
pub mod extension;
pub mod flowcontrol;
pub mod health;
pub mod nodes;
pub mod openapi;
pub mod operator;
pub mod paths;
pub mod pods;
pub mod resource_metrics;
pub mod reviews;
pub mod scale;
pub mod services;
pub mod subresources;
pub mod target;
pub mod token;
pub mod tunnel;
pub mod verbs;
pub mod watch;

use http::Response;

use crate::error::Answer;
use crate::http::respond::{self, Body, method_not_allowed};
use context::Context;
use target::Target;
use verbs::{delete, patch, read, write};

/// Answers a request that passed all filters. [`Target::check`] has refused what has no endpoint.
pub async fn dispatch(target: &Target, ctx: Context) -> Answer<Response<Body>> {
    if let Some(remote) = &target.remote {
        return extension::answer(ctx, remote).await;
    }
    let deprecation = ctx.view.as_ref().and_then(|view| view.definition.kind.deprecation(&ctx.info.version));
    let mut response = answer(target, ctx).await?;
    if let Some(text) = deprecation {
        respond::add_warnings(&mut response, &[text.into_owned()]);
    }
    Ok(response)
}

async fn answer(target: &Target, ctx: Context) -> Answer<Response<Body>> {
    if !ctx.info.resource_request {
        return paths::answer(&ctx).await;
    }
    if target.is_resource_metrics {
        return resource_metrics::answer(&ctx).await;
    }
    if !target.group_version_served {
        return Ok(respond::path_not_found());
    }
    if let Some(connector) = target.connector {
        return connect::answer(&ctx, connector).await;
    }
    if !ctx.info.subresource.is_empty() {
        return subresources::answer(&ctx).await;
    }
    if ctx.view()?.row.is_none() {
        return reviews::answer(&ctx).await;
    }
    match ctx.info.verb.as_str() {
        "get" => read::get(&ctx).await,
        "list" => read::list(&ctx).await,
        "watch" => watch::answer(&ctx).await,
        "create" => write::create(&ctx).await,
        "update" => write::update(&ctx).await,
        "patch" => patch::patch(&ctx).await,
        "delete" => delete::one(&ctx).await,
        "deletecollection" => delete::collection(&ctx).await,
        _ => Err(method_not_allowed()),
    }
}
