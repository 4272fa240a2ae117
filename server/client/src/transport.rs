//! The seam between a client and an API server: one HTTP request in, one HTTP response out.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt;

/// Any error of a body or a transport below us.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed response body.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Sends one request to some API server.
///
/// The request's URI holds only path and query; which server answers is the transport's business. An
/// implementation must resolve to an error only when no response head was received, and must end the body
/// with an error when its server dies in the middle of it.
pub trait Transport: Send + Sync + 'static {
    /// Sends the request; resolves when the response head is there.
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<http::Response<Body>, TransportError>>;
}

/// Why no response came.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection was made, so nothing was sent: safe to try again whatever the method.
    #[error("cannot connect to any API server: {0}")]
    Connect(#[source] BoxError),
    /// The connection broke after the request may have been sent: the outcome is unknown.
    #[error("connection to the API server broke: {0}")]
    Broken(#[source] BoxError),
    /// No answer within the time the client allows.
    #[error("no answer from the API server within {0:?}")]
    Timeout(std::time::Duration),
    /// There is no server to ask, or the transport is misconfigured.
    #[error("{0}")]
    Config(String),
}

/// The leadership under which a write is made. A request *extension*: only the in-process transport reads it,
/// and the store refuses the write when another leadership has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Raft term of the leadership.
    pub term: u64,
    /// The leader's node id.
    pub node_id: u64,
}

/// Who asks. A request *extension*: only the in-process transport reads it; over HTTPS the certificate or token
/// speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name, as RBAC sees it.
    pub user: String,
    /// User id, often empty.
    pub uid: String,
    /// Groups of the user.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// The identity of a service account, as a bound token would give it.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            uid: String::new(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            extra: BTreeMap::new(),
        }
    }
}

/// A body that is already complete: for in-process transports and tests.
#[must_use]
pub fn full_body(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
