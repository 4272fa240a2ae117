//! The endpoint on which agents open their tunnels ([`trireme_tunnel`]).
//!
//! Owns that a tunnel belongs to the node whose certificate opened it.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use trireme_api::status::Status;
use trireme_tunnel::{Dialer, PROTOCOL};

use crate::authz::node::node_name;
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::respond::{Body, method_not_allowed};

/// Switches to the tunnel's protocol and keeps the tunnel open until one side ends it.
pub fn answer(ctx: &Context) -> Answer<Response<Body>> {
    if ctx.method != Method::GET {
        return Err(method_not_allowed());
    }
    let Some(node) = node_name(&ctx.user).map(str::to_owned) else {
        return Err(Status::failure(403, "Forbidden", "only a node opens a tunnel, with the certificate of its kubelet").into());
    };
    if !ctx.server.tunnels.are_used() {
        return Err(Status::service_unavailable("tunnels are off on this server (--egress-selector-mode disabled)").into());
    }
    let asks = ctx.headers.get(UPGRADE).is_some_and(|protocol| protocol == PROTOCOL);
    let upgrade = ctx.upgrade.lock().take().filter(|_| asks);
    let upgrade = upgrade.ok_or_else(|| Status::bad_request(format!("an upgrade to {PROTOCOL} is needed, over HTTP/1.1")))?;
    let (tunnels, stopping, place) = (ctx.server.tunnels.clone(), ctx.server.stopping.clone(), ctx.place.clone());
    tokio::spawn(async move {
        let _place = place;
        let started = async { Dialer::start(TokioIo::new(upgrade.await.map_err(std::io::Error::other)?)).await };
        match started.await {
            Ok((dialer, carried)) => {
                tracing::debug!(node, "tunnel is open");
                let open = tunnels.open(&node, dialer);
                tokio::select! {
                    () = carried => {}
                    () = open.displaced() => {}
                    () = stopping.cancelled() => {}
                }
                tracing::debug!(node, "tunnel has ended");
            }
            Err(error) => tracing::debug!(node, %error, "tunnel did not open"),
        }
    });
    let mut switched = Response::new(Body::default());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    switched.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    switched.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(switched)
}
