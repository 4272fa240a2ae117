//! Requests that a plugin makes to its own server.
//!
//! They pass every filter and every plugin, as those of upstream's loopback client do. Plugins are made before the server that they
//! are part of, so the way to it is connected afterwards.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use trireme_api::status::Status;

use crate::error::Answer;

type Call = Box<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer<()>> + Send + Sync>;

/// The way to the own server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Loopback {
    call: Arc<OnceLock<Call>>,
}

// === impl Loopback ===

impl Loopback {
    /// From now on requests are answered by `call`. A second call changes nothing.
    pub fn connect(&self, call: impl Fn(Request<Bytes>) -> BoxFuture<'static, Answer<()>> + Send + Sync + 'static) {
        let _ = self.call.set(Box::new(call));
    }

    /// Makes a request as the server itself.
    pub async fn send(&self, request: Request<Bytes>) -> Answer<()> {
        match self.call.get() {
            Some(call) => call(request).await,
            None => Err(Status::service_unavailable("the server does not serve yet").with_retry_after(1).into()),
        }
    }
}
