//! Requests that are forwarded to a kubelet or a pod: logs, exec, attach, port-forward, proxy.
//!
//! Owns how bytes are passed through, and to which addresses: after `101 Switching Protocols` the server does not interpret the
//! stream. The connectors of the resources ([`connectors`]) name the destination of a request. A kubelet must present the serving
//! certificate of its node, and the server presents its client certificate.

pub mod address;
pub mod connector;
pub mod connectors;
pub mod destination;
pub mod forward;
pub mod name;
mod options;
pub mod proxied;
mod rewrite;
pub mod websocket;

use http::Response;
use serde_json::Value;
use trireme_api::gvk::GroupVersionKind;

use crate::admission::request::Operation;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::Body;
use connector::Connector;

/// Answers a connecting subresource.
pub async fn answer(ctx: &Context, connector: &Connector) -> Answer<Response<Body>> {
    // A WebSocket begins with a GET, but a user who may only read must not run commands: upstream's
    // `AuthorizePodWebsocketUpgradeCreatePermission`, on since 1.35.
    if connector.needs_create && ctx.info.verb != "create" {
        ctx.authorize_verb("create").await?;
    }
    if let Some(kind) = connector.admitted_as {
        let mut mutation = ctx.mutation(false, Value::Null)?;
        let options = options::object(kind, &ctx.info.query, &ctx.info.remainder);
        let mut request = mutation.admission_request(Operation::Connect, &ctx.info.name, Some(options), None);
        request.kind = GroupVersionKind::new("", "v1", kind);
        request.requested_kind = request.kind.clone();
        let mut effects = mutation.admit(&mut request).await?;
        mutation.admit_validating(&request, &mut effects).await?;
    }
    (connector.connect)(ctx).await
}
