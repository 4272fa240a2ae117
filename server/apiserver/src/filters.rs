//! What every request passes before a handler sees it: ids, identity, limits, authorization, time.
//!
//! Answers to upstream's `DefaultBuildHandlerChain`. The order matters: who asks is known before anything is counted
//! against him, and nobody learns anything before he may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use jiff::Timestamp;
use trireme_api::status::Status;
use trireme_raft::Fence;

use crate::attributes::Attributes;
use crate::authn::{Peer, impersonation};
use crate::error::Answer;
use crate::handlers;
use crate::metrics::GaugeGuard;
use crate::negotiate;
use crate::request_info::{RequestInfo, query_value};
use crate::respond::{self, Body};
use crate::server::Server;
use crate::user::{GROUP_MASTERS, UserInfo};

const AUDIT_ID: &str = "audit-id";

/// Who sends a request: somebody behind a socket, or a part of this process whose identity is known.
pub enum Source {
    /// Credentials must be looked at.
    Network,
    /// The in-process door.
    Inside(Box<UserInfo>, Option<Fence>),
}

/// Runs a request through the chain.
pub async fn run(server: Arc<Server>, source: Source, request: Request<Bytes>) -> Response<Body> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
    let long_running = info.is_long_running(&query);
    let audit_id = parts
        .headers
        .get(AUDIT_ID)
        .filter(|v| v.len() <= 64 && !v.is_empty())
        .cloned()
        .or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
    let head = parts.method == http::Method::HEAD;

    let status_encoding = negotiate::status_encoding(&parts.headers);

    let outcome = chain(&server, source, &mut parts, &info, &query, body, long_running).await;
    let mut response = outcome.unwrap_or_else(|status| respond::status_as(&status, status_encoding));

    if let Some(audit_id) = audit_id {
        response.headers_mut().insert(AUDIT_ID, audit_id);
    }
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let size = http_body::Body::size_hint(response.body()).exact();
    let dry_run = query_value(&query, "dryRun").is_some_and(|v| v == "All");
    server.metrics.observe(&info, dry_run, response.status().as_u16(), started.elapsed(), size, long_running);
    if head {
        *response.body_mut() = Body::default();
    }
    response
}

async fn chain(
    server: &Arc<Server>,
    source: Source,
    parts: &mut Parts,
    info: &RequestInfo,
    query: &str,
    body: Bytes,
    long_running: bool,
) -> Answer<Response<Body>> {
    let inside = matches!(source, Source::Inside(..));
    let (user, fence) = match source {
        Source::Inside(user, fence) => (*user, fence),
        Source::Network => {
            if let Some(response) = join_door(server, parts, &body).await {
                return Ok(response);
            }
            (authenticate(server, parts).await?, None)
        }
    };
    if let Some(join) = server.join.get()
        && let Some(answer) = join.known(&user, parts, &body, Timestamp::now()).await
    {
        return answer.map(|response| response.map(respond::full));
    }
    let user = match impersonation::impersonate(&server.security.authorizer, &user, &parts.headers).await? {
        Some(other) if !inside => other,
        _ => user,
    };

    // Parts of this process bound their own concurrency; administrators must get through to repair things.
    let _inflight = if long_running || inside || user.in_group(GROUP_MASTERS) { None } else { Some(admit(server, info)?) };
    let attributes = attributes_of(&user, info, query);
    authorize(server, &attributes).await?;

    let context = handlers::Context::new(server.clone(), parts, info.clone(), query.to_owned(), user, fence, body)?;
    if long_running {
        return handlers::dispatch(context).boxed().await;
    }
    let limit = request_timeout(query, server.options.request_timeout);
    match tokio::time::timeout(limit, handlers::dispatch(context).boxed()).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::timeout("request did not complete within the allotted timeout", 0).into()),
    }
}

/// The few paths that answer strangers: what a joining node or server needs before it has a certificate.
async fn join_door(server: &Server, parts: &Parts, body: &Bytes) -> Option<Response<Body>> {
    let from = parts.extensions.get::<SocketAddr>().map(SocketAddr::ip);
    let response = server.join.get()?.stranger(parts, body, from, Timestamp::now()).await?;
    Some(response.map(respond::full))
}

fn request_timeout(query: &str, limit: Duration) -> Duration {
    query_value(query, "timeout")
        .and_then(|t| t.strip_suffix('s').and_then(|secs| secs.parse::<u64>().ok()))
        .filter(|secs| *secs > 0)
        .map_or(limit, |secs| Duration::from_secs(secs).min(limit))
}

async fn authenticate(server: &Server, parts: &Parts) -> Answer<UserInfo> {
    let peer = parts.extensions.get::<Arc<Peer>>();
    let nobody = Peer::default();
    let peer = peer.map_or(&nobody, |p| p.as_ref());
    let outcome = server.security.authenticator.authenticate(peer, &parts.headers, parts.uri.path(), Timestamp::now()).await;
    server.metrics.authentications.with_label_values(&[if outcome.is_ok() { "success" } else { "failure" }]).inc();
    outcome
}

/// Takes a place among the requests in flight, or answers 429.
fn admit(server: &Server, info: &RequestInfo) -> Answer<(tokio::sync::OwnedSemaphorePermit, GaugeGuard)> {
    let (places, kind) =
        if matches!(info.verb.as_str(), "get" | "list" | "head") { (&server.reading, "readOnly") } else { (&server.writing, "mutating") };
    match places.clone().try_acquire_owned() {
        Ok(permit) => Ok((permit, GaugeGuard::new(server.metrics.inflight.with_label_values(&[kind])))),
        Err(_) => {
            let labels = ["apiserver", "429", &info.group, &info.resource, "", &info.subresource, &info.verb, &info.version];
            server.metrics.terminations.with_label_values(&labels).inc();
            Err(Status::too_many_requests("Too many requests, please try again later.", 1).into())
        }
    }
}

/// A request as the authorizer sees it.
pub fn attributes_of(user: &UserInfo, info: &RequestInfo, query: &str) -> Attributes {
    let selectors = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    Attributes {
        user: user.clone(),
        verb: info.verb.clone(),
        resource_request: info.resource_request,
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        path: info.path.clone(),
        field_selector: selectors.then(|| query_value(query, "fieldSelector")).flatten(),
        label_selector: selectors.then(|| query_value(query, "labelSelector")).flatten(),
    }
}

/// Asks the authorizer; a refusal becomes upstream's 403.
pub async fn authorize(server: &Server, attributes: &Attributes) -> Answer<()> {
    let outcome = server.security.authorizer.require(attributes).await;
    let decision = if outcome.is_ok() { "allowed" } else { "denied" };
    server.metrics.authorizations.with_label_values(&[decision, "union", "RBAC"]).inc();
    outcome
}
