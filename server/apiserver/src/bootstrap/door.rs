//! Writing through the API server's own in-process door.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request};
use serde_json::Value;

/// Sends a request under an identity that may do everything, and under this leadership's fence. Gives code and body.
pub type Call = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<(u16, Bytes), String>> + Send + Sync>;

/// A refused or failed write.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {reason}")]
pub struct DoorError {
    method: Method,
    path: String,
    reason: String,
}

/// The door.
#[derive(Clone)]
pub struct Door {
    call: Call,
}

impl Door {
    /// A door over `call`.
    pub fn new(call: Call) -> Door {
        Door { call }
    }

    /// Creates an object; one that exists meanwhile is as good.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<(), DoorError> {
        self.write(Method::POST, collection, Some(object), &[409]).await
    }

    /// Replaces an object. A conflict means that somebody else wrote: the next round looks again.
    pub async fn replace(&self, item: &str, object: &Value) -> Result<(), DoorError> {
        self.write(Method::PUT, item, Some(object), &[409]).await
    }

    /// Deletes an object; one that is gone is as good.
    pub async fn delete(&self, item: &str) -> Result<(), DoorError> {
        self.write(Method::DELETE, item, None, &[404]).await
    }

    async fn write(&self, method: Method, path: &str, object: Option<&Value>, also_good: &[u16]) -> Result<(), DoorError> {
        let failed = |reason: String| DoorError { method: method.clone(), path: path.to_owned(), reason };
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
