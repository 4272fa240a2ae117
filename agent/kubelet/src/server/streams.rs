//! exec, attach and port-forward: from whatever the client speaks to the SPDY/3.1 that the runtime's streaming server speaks.
//!
//! A client that speaks SPDY itself is spliced through byte for byte; one that speaks WebSocket is bridged (`websocket`).

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONNECTION, UPGRADE},
    },
    response::Response,
};
use hyper_util::rt::TokioIo;

use super::{
    request::refuse,
    upstream::{Wanted, dial},
    websocket,
};

/// Serves exec and attach.
pub(crate) async fn remote_command(request: Request, url: String, wanted: Wanted) -> Result<Response, Response> {
    match upgrade_of(request.headers()).as_deref() {
        Some("websocket") => websocket::remote_command(request, url, wanted).await,
        Some("spdy/3.1") => splice(request, &url).await,
        _ => Err(refuse(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request: \"Upgrade\" must be websocket or SPDY/3.1",
        )),
    }
}

/// Serves port-forward.
pub(crate) async fn port_forward(request: Request, url: String, ports: Vec<u16>) -> Result<Response, Response> {
    match upgrade_of(request.headers()).as_deref() {
        Some("websocket") => websocket::port_forward(request, url, ports).await,
        Some("spdy/3.1") => splice(request, &url).await,
        _ => Err(refuse(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: missing upgrade headers in request: \"Upgrade\" must be websocket or SPDY/3.1",
        )),
    }
}

fn upgrade_of(headers: &HeaderMap) -> Option<String> {
    headers.get(UPGRADE)?.to_str().ok().map(str::to_ascii_lowercase)
}

/// Connects a client that speaks SPDY/3.1 with the runtime, which does too.
async fn splice(mut request: Request, url: &str) -> Result<Response, Response> {
    let protocols: Vec<HeaderValue> = request.headers().get_all("X-Stream-Protocol-Version").iter().cloned().collect();
    let (mut upstream, headers) = dial(url, &protocols).await.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(client) => {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut upstream).await;
            }
            Err(error) => tracing::debug!(%error, "a client went away before its stream began"),
        }
    });
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade").header(UPGRADE, "SPDY/3.1");
    if let Some(protocol) = headers.get("X-Stream-Protocol-Version") {
        response = response.header("X-Stream-Protocol-Version", protocol);
    }
    response.body(Body::empty()).map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
