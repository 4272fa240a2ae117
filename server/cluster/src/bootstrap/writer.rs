//! Writing through the API server of this process.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use trireme_apiserver::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};
use trireme_apiserver::{ApiServer, Caller, UserInfo};
use trireme_raft::Fence;

/// The identity of writes that the server itself makes.
const IDENTITY: &str = "system:apiserver";

/// Sends one request; gives the status code and the body.
pub type Call = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<(u16, Bytes), String>> + Send + Sync>;

/// A refused or failed write.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {reason}")]
pub struct WriteError {
    method: Method,
    path: String,
    reason: String,
}

/// Writes objects as an administrator.
#[derive(Clone)]
pub struct Writer {
    call: Call,
}

// === impl Writer ===

impl Writer {
    /// Writes through `call`.
    pub fn new(call: Call) -> Writer {
        Writer { call }
    }

    /// Writes through `api` in this process, under the fence of a leadership.
    pub fn of(api: ApiServer, fence: Option<Fence>) -> Writer {
        Writer::new(Arc::new(move |request| {
            let api = api.clone();
            let caller = Caller { user: UserInfo::new(IDENTITY, &[GROUP_MASTERS, GROUP_AUTHENTICATED]), fence };
            Box::pin(async move {
                let response = api.call(caller, request).await;
                let code = response.status().as_u16();
                let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
                Ok((code, body.to_bytes()))
            })
        }))
    }

    /// Creates an object; that it exists already is no error.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<(), WriteError> {
        self.write(Method::POST, collection, Some(object), &[409]).await
    }

    /// Replaces an object. A conflict means that another client wrote: the next round looks again.
    pub async fn replace(&self, item: &str, object: &Value) -> Result<(), WriteError> {
        self.write(Method::PUT, item, Some(object), &[409]).await
    }

    /// Deletes an object; that it is gone already is no error.
    pub async fn delete(&self, item: &str) -> Result<(), WriteError> {
        self.write(Method::DELETE, item, None, &[404]).await
    }

    async fn write(&self, method: Method, path: &str, object: Option<&Value>, also_good: &[u16]) -> Result<(), WriteError> {
        let failed = |reason: String| WriteError { method: method.clone(), path: path.to_owned(), reason };
        let body = match object {
            Some(object) => Bytes::from(serde_json::to_vec(object).map_err(|error| failed(error.to_string()))?),
            None => Bytes::new(),
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("user-agent", "trireme-bootstrap")
            .body(body)
            .map_err(|error| failed(error.to_string()))?;
        let (code, answer) = (self.call)(request).await.map_err(failed)?;
        if (200..300).contains(&code) || also_good.contains(&code) {
            return Ok(());
        }
        let status: Value = serde_json::from_slice(&answer).unwrap_or_default();
        Err(failed(format!("{code} {}", status["message"].as_str().unwrap_or_default())))
    }
}
