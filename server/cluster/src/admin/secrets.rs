//! How Secrets are sealed: `/trireme/v1/secrets-encrypt`.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use trireme_api::admin::{SECRETS, SecretsStatus};

use crate::pki::ClusterKeys;
use trireme_apiserver::Answer;
use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::http::respond::Body;

/// The endpoint. It tells ids of keys, never keys.
pub struct SecretsOf {
    keys: Arc<ClusterKeys>,
}

impl SecretsOf {
    /// Of the cluster with these keys.
    pub fn new(keys: Arc<ClusterKeys>) -> SecretsOf {
        SecretsOf { keys }
    }
}

impl RouteFamily for SecretsOf {
    fn name(&self) -> &'static str {
        SECRETS
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        let answer = match (&request.method, request.parts().as_slice()) {
            (&Method::GET, []) => {
                let keys: Vec<String> = self.keys.data_keys.iter().map(|key| key.id.clone()).collect();
                let active_key = keys.first().cloned().unwrap_or_default();
                json(&SecretsStatus { enabled: !keys.is_empty(), cipher: "AES-256-GCM".into(), active_key, keys })
            }
            (_, []) => Err(method_not_allowed(&request)),
            _ => Err(not_found()),
        };
        async { answer }.boxed()
    }
}
