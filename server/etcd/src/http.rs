//! The pages beside gRPC: health, version, metrics. As etcd has them, on the same port and behind the same certificate.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::Status;

use crate::backend::{Backend, blocking, has_leader};
use crate::metrics::{Calls, render};
use crate::{CLUSTER_VERSION, VERSION};

/// A member that cannot confirm a read in this time is not healthy.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Pages {
    backend: Backend,
    calls: Arc<Calls>,
}

/// The pages.
pub(crate) fn pages(backend: Backend, calls: Arc<Calls>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .with_state(Pages { backend, calls })
}

/// Why this member is not healthy, if it is not. With `serializable`, its own state is all that counts.
async fn trouble(backend: &Backend, serializable: bool) -> Option<String> {
    if let Some(failure) = backend.status().failure {
        return Some(failure.to_string());
    }
    if serializable {
        return None;
    }
    if !has_leader(&backend.status()) {
        return Some("RAFT NO LEADER".to_owned());
    }
    match tokio::time::timeout(HEALTH_TIMEOUT, backend.barrier()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("RANGE ERROR:{}", error.message())),
        Err(_) => Some("RANGE ERROR:etcdserver: request timed out".to_owned()),
    }
}

async fn health(State(pages): State<Pages>, uri: Uri) -> Response {
    let serializable = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "serializable=true"));
    let (code, healthy, reason) = match trouble(&pages.backend, serializable).await {
        None => (StatusCode::OK, true, String::new()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, false, reason),
    };
    let reason: String = reason.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
    json(code, format!("{{\"health\":\"{healthy}\",\"reason\":\"{reason}\"}}"))
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(pages): State<Pages>) -> Response {
    match trouble(&pages.backend, false).await {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn version() -> Response {
    json(
        StatusCode::OK,
        format!("{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{CLUSTER_VERSION}\",\"storage\":\"{CLUSTER_VERSION}\"}}"),
    )
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let rendered = blocking(move || Ok(render(pages.backend.store(), &pages.calls))).await;
    match rendered {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.message().to_owned()).into_response(),
    }
}

/// Answers paths that belong to neither a page nor a gRPC service.
pub(crate) async fn nothing(headers: HeaderMap) -> Response {
    let grpc = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    match grpc {
        true => Status::unimplemented("unknown service or method").into_http(),
        false => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
    }
}

fn json(code: StatusCode, text: String) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
