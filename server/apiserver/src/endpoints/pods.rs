//! What only pods have: connections into their containers, binding and eviction.

pub mod binding;
pub mod container;
pub mod eviction;
pub mod exec;
pub mod log;
pub mod port_forward;
pub mod proxy;

use http::Response;

use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::Body;

/// Answers a subresource of pods that is an action of its own; `None` for all others.
pub async fn subresource(ctx: &Context) -> Option<Answer<Response<Body>>> {
    match (ctx.info.group.as_str(), ctx.info.resource.as_str(), ctx.info.subresource.as_str(), ctx.info.verb.as_str()) {
        ("", "pods", "binding", "create") => Some(binding::create(ctx, &ctx.info.name).await),
        ("", "pods", "eviction", "create") => Some(eviction::create(ctx).await),
        _ => None,
    }
}
