//! Audit: the id under which a request appears in logs and audit events (the client's, or a fresh one), and the stages at which its
//! events are recorded.
//!
//! Answers to upstream's `WithAuditInit`, `WithAudit` and `WithFailedAuthenticationAudit`. What is recorded, and where, is
//! [`crate::audit`]'s business.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use trireme_api::status::Status;

use crate::audit::Record;
use crate::audit::event::{EVENT_BYTES_MAX, Origin};
use crate::audit::policy::Stage;
use crate::chain::call::Call;
use crate::error::Answer;
use crate::http::parameters::escape;
use crate::http::respond::{Body, BoxError, full};
use crate::server::Server;

const AUDIT_ID: &str = "audit-id";
/// The longest id that is taken from a client.
const ID_BYTES_MAX: usize = 64;
/// The most addresses that are taken from `X-Forwarded-For`.
const FORWARDED_MAX: usize = 16;

/// The id of a request.
pub fn id(headers: &HeaderMap) -> Option<HeaderValue> {
    let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    given.cloned().or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok())
}

/// Shows the id to the client.
pub fn mark<T>(response: &mut Response<T>, id: Option<HeaderValue>) {
    if let Some(id) = id {
        response.headers_mut().insert(AUDIT_ID, id);
    }
}

/// Begins the record of a request whose user is known.
pub async fn begin(server: &Server, call: &mut Call) -> Answer<()> {
    call.record = open(server, call);
    match &mut call.record {
        Some(record) => record.received().await,
        None => Ok(()),
    }
}

/// Records a request whose credentials were refused.
pub async fn unauthenticated(server: &Server, call: &Call, has_bearer: bool, status: &Status) {
    let Some(mut record) = open(server, call) else { return };
    let attempted = if has_bearer { "bearer" } else { "x509" };
    let mut shown = status.clone();
    shown.message = format!("Authentication failed, attempted: {attempted}");
    record.refused(&shown);
    record.end(Stage::ResponseStarted).await;
}

/// Whether a request has a bearer token.
pub fn has_bearer(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION)
}

/// What the authorizer has decided.
pub fn decided(call: &Call, outcome: &Answer<()>) {
    if let Some(annotations) = call.record.as_ref().and_then(Record::annotations) {
        annotations.add("authorization.k8s.io/decision", if outcome.is_ok() { "allow" } else { "forbid" });
        if let Err(status) = outcome {
            annotations.add("authorization.k8s.io/reason", &*status.message);
        }
    }
}

/// Records an answer: before it is sent, or, if it is a stream, when it has ended.
pub async fn answered(record: Option<Record>, response: Response<Body>, long_running: bool) -> Response<Body> {
    let Some(mut record) = record else { return response };
    record.answers(response.status().as_u16());
    let (parts, body) = response.into_parts();
    let wants_body = record.wants_answer() && !long_running;
    if long_running {
        record.started().await;
    }
    if long_running || body.size_hint().exact().is_none() {
        let kept = wants_body.then(BytesMut::new);
        let recorded = Recorded { body, record: Some(record), headers: parts.headers.clone(), wants_body, kept };
        return Response::from_parts(parts, recorded.boxed_unsync());
    }
    let body = match wants_body {
        true => match body.collect().await {
            Ok(collected) => {
                let bytes = collected.to_bytes();
                record.answer_body(&parts.headers, Some(&bytes).filter(|bytes| bytes.len() <= EVENT_BYTES_MAX));
                full(bytes)
            }
            Err(error) => crate::http::respond::stream(futures::stream::once(async move { Err(error) })),
        },
        false => body,
    };
    record.end(Stage::ResponseComplete).await;
    Response::from_parts(parts, body)
}

/// Records that a request ended with a Status.
pub async fn refused(record: Option<Record>, status: &Status, stage: Stage) {
    if let Some(mut record) = record {
        record.refused(status);
        record.end(stage).await;
    }
}

fn open(server: &Server, call: &Call) -> Option<Record> {
    let audit = server.options.audit.as_ref()?;
    let id = call.audit_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    audit.begin(id.to_owned(), uri(call), &call.user, &call.info, origin(call))
}

/// Path and query, as they were understood.
fn uri(call: &Call) -> String {
    let path = escape(&call.info.path, b"/-_.~!$&'()*+,;=:@");
    match call.info.query.raw() {
        "" => path,
        query => format!("{path}?{query}"),
    }
}

fn origin(call: &Call) -> Origin {
    let text = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let forwarded = text("x-forwarded-for").split(',').take(FORWARDED_MAX).chain([text("x-real-ip")]);
    let mut source_ips: Vec<String> = Vec::new();
    for address in forwarded.filter_map(|text| text.trim().parse().ok()).chain(call.from) {
        let address = address.to_string();
        if source_ips.last() != Some(&address) {
            source_ips.push(address);
        }
    }
    Origin { source_ips, user_agent: text("user-agent").to_owned() }
}

/// A body whose end is recorded.
struct Recorded {
    body: Body,
    record: Option<Record>,
    headers: HeaderMap,
    wants_body: bool,
    /// What was sent; none if it is not recorded.
    kept: Option<BytesMut>,
}

// === impl Recorded ===

impl Recorded {
    fn end(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        if self.wants_body {
            record.answer_body(&self.headers, self.kept.take().map(BytesMut::freeze).as_ref());
        }
        // The record tells its last event when it is dropped.
        drop(record);
    }
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(kept), Some(data)) = (&mut self.kept, frame.data_ref()) {
                    kept.extend_from_slice(data);
                    if kept.len() > EVENT_BYTES_MAX {
                        self.kept = None;
                    }
                }
            }
            Poll::Ready(Some(Err(_)) | None) => self.end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.end();
    }
}
