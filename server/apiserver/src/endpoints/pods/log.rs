//! `pods/log`: what a container has written, as a stream of text or over a WebSocket.
//!
//! Answers to upstream's `LogREST` (`pkg/registry/core/pod/rest/log.go`).

use futures::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::gvk::GroupKind;
use trireme_api::status::Status;

use crate::authn::bearer::is_websocket;
use crate::endpoints::connect::connector::{Connector, Duration};
use crate::endpoints::connect::{forward, websocket};
use crate::endpoints::context::Context;
use crate::endpoints::pods::container::{container, kubelet_of, pod, with_query};
use crate::error::Answer;
use crate::http::parameters::Parameters;
use crate::http::respond::Body;

/// No more is read of a kubelet's explanation why there is no log.
const EXPLANATION_BYTES_MAX: usize = 50_000;

/// `pods/log`.
pub static CONNECTOR: Connector = Connector {
    group: "",
    resource: "pods",
    subresource: "log",
    takes_path: false,
    needs_create: false,
    admitted_as: None,
    duration: Duration::UnboundedIf("follow"),
    connect: |ctx| connect(ctx).boxed(),
};

async fn connect(ctx: &Context) -> Answer<Response<Body>> {
    let query = &ctx.info.query;
    validate(query, &ctx.info.name)?;
    let pod = pod(ctx).await?;
    let container = container(ctx, &pod)?;
    let mut passed: Vec<(&str, String)> =
        ["follow", "previous", "timestamps"].into_iter().filter(|name| query.flag(name)).map(|name| (name, "true".to_owned())).collect();
    for name in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if !query.text(name).is_empty() {
            passed.push((name, query.text(name).to_owned()));
        }
    }
    let path = format!("/containerLogs/{}/{}/{container}", ctx.info.namespace, ctx.info.name);
    let destination = kubelet_of(ctx, &pod, with_query(path, &passed))?;
    let source = forward::fetch(ctx, &destination).await?;
    if !source.status().is_success() {
        return Err(explained(ctx, source).await);
    }
    if is_websocket(&ctx.headers) {
        return websocket::stream(ctx, source);
    }
    let mut answer = Response::new(forward::held(ctx, source.into_body()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}

/// The options that no kubelet has to see to know that they are wrong.
fn validate(query: &Parameters, name: &str) -> Answer<()> {
    let mut errors = FieldErrors::new();
    let integer = |name: &str| query.integer(name).map_err(|error| Box::new(Status::bad_request(error.to_string())));
    let (tail, limit, since) = (integer("tailLines")?, integer("limitBytes")?, integer("sinceSeconds")?);
    if let Some(lines) = tail.filter(|lines| *lines < 0) {
        errors.push(FieldError::invalid(&FieldPath::new("tailLines"), lines, "must be greater than or equal to 0"));
    }
    if let Some(bytes) = limit.filter(|bytes| *bytes < 1) {
        errors.push(FieldError::invalid(&FieldPath::new("limitBytes"), bytes, "must be greater than 0"));
    }
    match since {
        Some(_) if !query.text("sinceTime").is_empty() => {
            errors.push(FieldError::forbidden(&FieldPath::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        Some(seconds) if seconds < 1 => {
            errors.push(FieldError::invalid(&FieldPath::new("sinceSeconds"), seconds, "must be greater than 0"));
        }
        _ => {}
    }
    let stream = query.text("stream");
    if !matches!(stream, "" | "All" | "Stdout" | "Stderr") {
        errors.push(FieldError::not_supported(&FieldPath::new("stream"), stream, &["All", "Stderr", "Stdout"]));
    }
    if !matches!(stream, "" | "All") && tail.is_some() {
        errors.push(FieldError::forbidden(&FieldPath::new(""), "`tailLines` and specific `stream` are mutually exclusive for now"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&GroupKind::new("", "PodLogOptions"), name, &errors).into()) }
}

/// A kubelet says in plain words why there is no log; clients read a Status.
async fn explained(ctx: &Context, source: Response<Incoming>) -> Box<Status> {
    let code = source.status();
    let (mut body, mut text) = (source.into_body(), Vec::new());
    while text.len() < EXPLANATION_BYTES_MAX {
        let Some(Ok(frame)) = body.frame().await else { break };
        text.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Box::new(match code.as_u16() {
        400 => Status::bad_request(text),
        500 => Status::internal(text),
        404 => {
            Status::failure(404, "NotFound", format!("the server could not find the requested resource ( pods {}): {text}", ctx.info.name))
        }
        other => Status::failure(other, code.canonical_reason().unwrap_or_default(), text),
    })
}
