//! Forwards a request, and returns its answer.
//!
//! Answers to upstream's `UpgradeAwareHandler` (`apimachinery/pkg/util/proxy`).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use trireme_api::status::Status;

use crate::endpoints::connect::destination::{Destination, unreachable};
use crate::endpoints::context::Context;
use crate::error::Answer;
use crate::http::body::Payload;
use crate::http::respond::{self, Body, BoxError};

/// Headers that belong to one hop.
const HOP: [&str; 8] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"];

/// Sends the request to `destination`, upgrade included, and gives its answer back.
pub async fn forward(ctx: &Context, destination: &Destination) -> Answer<Response<Body>> {
    let upgrade = ctx.headers.get(UPGRADE).cloned();
    let mut response = send(ctx, destination, upgrade.as_ref()).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return tunnel(ctx, &mut response);
    }
    let (parts, body) = response.into_parts();
    let mut answer = Response::new(held(ctx, body));
    *answer.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if !HOP.contains(&HeaderName::as_str(name)) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(answer)
}

/// Sends the request without an upgrade, whatever the client asked this server for.
pub async fn fetch(ctx: &Context, destination: &Destination) -> Answer<Response<hyper::body::Incoming>> {
    send(ctx, destination, None).await
}

async fn send(ctx: &Context, destination: &Destination, upgrade: Option<&HeaderValue>) -> Answer<Response<hyper::body::Incoming>> {
    let stream = destination.connect(&*ctx.server.tunnels).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|error| unreachable(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a node or pod ended");
        }
    });
    let mut request = Request::new(body(ctx));
    *request.method_mut() = ctx.method.clone();
    *request.uri_mut() = destination.path.parse::<Uri>().map_err(|error| Status::bad_request(error.to_string()))?;
    *request.headers_mut() = copied(&ctx.headers, upgrade.is_some());
    let host = HeaderValue::from_str(&destination.authority()).map_err(|error| Status::bad_request(error.to_string()))?;
    request.headers_mut().insert(HOST, host);
    if let Some(protocol) = upgrade {
        request.headers_mut().insert(UPGRADE, protocol.clone());
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    sender.send_request(request).await.map_err(|error| unreachable(&error))
}

/// The body of the client, passed on as it comes.
fn body(ctx: &Context) -> Body {
    match ctx.payload.lock().take() {
        Some(Payload::Stream(body)) => body.map_err(|error| Box::new(error) as BoxError).boxed_unsync(),
        Some(Payload::Whole(bytes)) => respond::full(bytes),
        None => respond::full(Bytes::new()),
    }
}

/// The headers that the other side sees. Credentials have ended at authentication already.
fn copied(headers: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        let hop = HOP.contains(&name.as_str()) || name == HOST || name == CONTENT_LENGTH;
        if !hop && (upgrades || !name.as_str().starts_with("sec-websocket-")) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Keeps the place of a long-running request until its answer has been sent.
pub fn held<B>(ctx: &Context, body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let place = ctx.place.clone();
    body.map_frame(move |frame| {
        let _held = &place;
        frame
    })
    .map_err(Into::into)
    .boxed_unsync()
}

/// Joins both sides until one of them, or the server, ends.
fn tunnel(ctx: &Context, response: &mut Response<hyper::body::Incoming>) -> Answer<Response<Body>> {
    let Some(client) = ctx.upgrade.lock().take() else {
        return Err(Status::bad_request("Upgrade request required").into());
    };
    let other = hyper::upgrade::on(&mut *response);
    let (stopping, place) = (ctx.server.stopping.clone(), ctx.place.clone());
    tokio::spawn(async move {
        let _place: Option<Arc<_>> = place;
        let (client, other) = match tokio::try_join!(client, other) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut other) => {}
            () = stopping.cancelled() => {}
        }
    });
    let mut switched = Response::new(Body::default());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in response.headers() {
        switched.headers_mut().append(name.clone(), value.clone());
    }
    Ok(switched)
}
