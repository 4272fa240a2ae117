//! Service account tokens for projected volumes: asked for through TokenRequest, bound to the pod, renewed at 80 % of their life.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection},
};
use parking_lot::Mutex;
use serde_json::json;
use trireme_client::Client;

use crate::{
    error::{Error, Result},
    pod::spec,
};

const DEFAULT_LIFE_SECS: i64 = 3600;
/// A token is renewed after a day even if it lives longer.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A token of a pod's service account.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) token: String,
    renew_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// The tokens in use, in memory only, by pod UID, audience and lifetime.
pub(crate) struct Tokens {
    client: Client,
    cache: Mutex<HashMap<(String, String, i64), Token>>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Tokens {
        Tokens { client, cache: Mutex::default() }
    }

    /// A valid token and when to ask again.
    pub(crate) async fn get(&self, pod: &Pod, source: &ServiceAccountTokenProjection, now: Timestamp) -> Result<(String, Timestamp)> {
        let audience = source.audience.as_deref().unwrap_or_default();
        self.issue(pod, audience, source.expiration_seconds, now).await.map(|token| (token.token, token.renew_at))
    }

    /// A valid token for an audience; the empty one is the API server's. A token past its renewal that cannot be renewed is used until
    /// it ends.
    pub(crate) async fn issue(&self, pod: &Pod, audience: &str, life: Option<i64>, now: Timestamp) -> Result<Token> {
        let life = life.unwrap_or(DEFAULT_LIFE_SECS);
        let key = (spec::uid(pod).to_string(), audience.to_owned(), life);
        let known = self.cache.lock().get(&key).cloned();
        if let Some(known) = known.as_ref().filter(|t| now < t.renew_at) {
            return Ok(known.clone());
        }
        match self.request(pod, audience, life, now).await {
            Ok(token) => {
                self.cache.lock().insert(key, token.clone());
                Ok(token)
            }
            Err(error) => match known.filter(|t| now < t.expires_at) {
                Some(known) => Ok(Token { renew_at: now + SignedDuration::from_secs(30), ..known }),
                None => Err(error),
            },
        }
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.cache.lock().retain(|(holder, _, _), _| holder != uid);
    }

    async fn request(&self, pod: &Pod, audience: &str, life: i64, now: Timestamp) -> Result<Token> {
        let account = spec::pod_spec(pod).service_account_name.as_deref().filter(|a| !a.is_empty()).unwrap_or("default");
        let audiences: Vec<&str> = Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": life,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid},
            },
        });
        let answer = self.client.create_subresource::<ServiceAccount>(Some(spec::namespace(pod)), account, "token", &body).await;
        let answer = answer.map_err(|e| Error::Config(format!("failed to fetch token: {e}")))?;
        let answer: TokenRequest = serde_json::from_value(answer).map_err(|e| Error::Config(format!("failed to fetch token: {e}")))?;
        let status = answer.status.and_then(|s| Some((s.token?, s.expiration_timestamp?.0)));
        let (token, expires_at) = status.ok_or_else(|| Error::Config("failed to fetch token: the answer has no token".into()))?;
        let lifetime = expires_at.duration_since(now);
        let renew_after = (lifetime * 4 / 5).min(MAX_AGE);
        Ok(Token { token, renew_at: now + renew_after, expires_at })
    }
}
