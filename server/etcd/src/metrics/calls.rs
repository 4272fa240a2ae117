//! Counts gRPC calls by method and outcome, and refuses those that want a leader where there is none.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::Page;
use crate::backend::{Backend, has_leader, requires_leader};
use crate::error;

/// Methods that are counted, each with its kind: a name that a client makes up must not create a series.
const METHODS: &[(&str, &str, &[&str])] = &[
    ("etcdserverpb.KV", "unary", &["Range", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.Watch", "bidi_stream", &["Watch"]),
    ("etcdserverpb.Lease", "unary", &["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"]),
    ("etcdserverpb.Lease", "bidi_stream", &["LeaseKeepAlive"]),
    ("etcdserverpb.Cluster", "unary", &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"]),
    ("etcdserverpb.Maintenance", "unary", &["Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"]),
    ("etcdserverpb.Maintenance", "server_stream", &["Snapshot"]),
    ("v3electionpb.Election", "unary", &["Campaign", "Proclaim", "Leader", "Resign"]),
    ("v3electionpb.Election", "server_stream", &["Observe"]),
    ("v3lockpb.Lock", "unary", &["Lock", "Unlock"]),
    ("grpc.health.v1.Health", "unary", &["Check"]),
    ("grpc.health.v1.Health", "server_stream", &["Watch"]),
];

/// A method as the metrics name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Method {
    service: &'static str,
    name: &'static str,
    kind: &'static str,
}

/// Calls so far.
#[derive(Default)]
pub(crate) struct Calls {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    started: BTreeMap<Method, u64>,
    handled: BTreeMap<(Method, &'static str), u64>,
}

/// Puts the counting around the services.
#[derive(Clone)]
pub(crate) struct CallsLayer {
    calls: Arc<Calls>,
    backend: Backend,
}

/// Services with counting around them.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    layer: CallsLayer,
}

/// A call until its end, which is in the trailers, or never comes: then the client has gone.
struct Running {
    calls: Arc<Calls>,
    method: Method,
    code: Option<Code>,
}

struct CountedBody {
    inner: Body,
    running: Running,
}

// === impl Method ===

impl Method {
    fn of(path: &str) -> Option<Method> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        METHODS.iter().filter(|(known, ..)| *known == service).find_map(|(service, kind, names)| {
            let name = names.iter().find(|known| **known == name)?;
            Some(Method { service, name, kind })
        })
    }

    fn labels(&self) -> String {
        format!("grpc_method=\"{}\",grpc_service=\"{}\",grpc_type=\"{}\"", self.name, self.service, self.kind)
    }
}

// === impl Calls ===

impl Calls {
    pub(crate) fn new() -> Calls {
        Calls::default()
    }

    fn start(self: &Arc<Self>, method: Method) -> Running {
        *self.counts.lock().started.entry(method).or_default() += 1;
        Running { calls: self.clone(), method, code: None }
    }

    pub(super) fn render(&self, page: &mut Page) {
        let counts = self.counts.lock();
        let name = "grpc_server_started_total";
        page.head(name, "counter", "Total number of RPCs started on the server.");
        for (method, count) in &counts.started {
            page.sample(name, &format!("{{{}}}", method.labels()), count);
        }
        let name = "grpc_server_handled_total";
        page.head(name, "counter", "Total number of RPCs completed on the server, regardless of success or failure.");
        for ((method, code), count) in &counts.handled {
            page.sample(name, &format!("{{grpc_code=\"{code}\",{}}}", method.labels()), count);
        }
    }
}

// === impl CallsLayer ===

impl CallsLayer {
    pub(crate) fn new(calls: Arc<Calls>, backend: Backend) -> CallsLayer {
        CallsLayer { calls, backend }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, layer: self.clone() }
    }
}

// === impl Counted ===

impl<S> Service<Request> for Counted<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(method) = Method::of(request.uri().path()) else { return Box::pin(self.inner.call(request)) };
        let mut running = self.layer.calls.start(method);
        if requires_leader(request.headers()) && !has_leader(&self.layer.backend.status()) {
            running.code = Some(Code::Unavailable);
            return Box::pin(async move { Ok(Status::from(error::NO_LEADER).into_http()) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            running.note(response.headers());
            Ok(response.map(|inner| Body::new(CountedBody { inner, running })))
        })
    }
}

// === impl Running ===

impl Running {
    /// Takes the outcome from headers or trailers, if it is in them.
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let code = code_name(self.code.unwrap_or(Code::Cancelled));
        *self.calls.counts.lock().handled.entry((self.method, code)).or_default() += 1;
    }
}

// === impl CountedBody ===

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.running.note(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// As Go's gRPC names them.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
