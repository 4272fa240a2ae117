//! Which endpoint answers a subresource that is no connection.
//!
//! `status` and `scale` mean the same for every resource. Other subresources are registered by the resource that has them.

use http::Response;

use crate::endpoints::context::Context;
use crate::endpoints::verbs::{part, patch, read, write};
use crate::endpoints::{pods, scale, token};
use crate::error::Answer;
use crate::http::respond::{Body, method_not_allowed};

/// Answers a request for a subresource that exists and has the verb.
pub async fn answer(ctx: &Context) -> Answer<Response<Body>> {
    let info = &ctx.info;
    if let Some(answer) = pods::subresource(ctx).await {
        return answer;
    }
    match (info.subresource.as_str(), info.verb.as_str()) {
        ("scale", "get") => scale::get(ctx).await,
        ("scale", "update" | "patch") => scale::write(ctx).await,
        ("token", "create") => token::create(ctx).await,
        (_, "get") => read::get(ctx).await,
        ("status", "update") => write::update(ctx).await,
        ("status", "patch") => patch::patch(ctx).await,
        (_, "update" | "patch") => part::write(ctx).await,
        _ => Err(method_not_allowed()),
    }
}
