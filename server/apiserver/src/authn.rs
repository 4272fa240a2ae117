//! Authentication: who is behind a request.
//!
//! Order as upstream: the front proxy's headers, a client certificate, a bearer token, and anonymous for a
//! few paths only. A credential that is presented and is no good ends in 401 unless another one is good.
//!
//! Owns: judging certificates after a handshake that accepts any (so that an expired or foreign one gets a
//! `Status`, not a TLS alert), service-account tokens, reviews, impersonation. Must not do: decide what an
//! identity may do, or keep sessions.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authentication/>.

pub mod front_proxy;
pub mod impersonation;
pub mod review;
pub mod token;
pub mod token_request;
pub mod x509;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use trireme_api::status::Status;

use crate::{
    pki::{ClusterKeys, PkiError},
    user::{GROUP_AUTHENTICATED, UserInfo},
};

pub use token::ServiceAccountTokens;
pub use x509::{Peer, accept_any_verifier, server_config};

/// Paths that answer to requests without credentials.
const ANONYMOUS_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Good certificates that are remembered; they are dropped together when the table is full.
const JUDGED_MAX: usize = 4096;

/// All authenticators of the API server. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    clients: Arc<x509::ChainVerifier>,
    front_proxies: Arc<x509::ChainVerifier>,
    tokens: Arc<ServiceAccountTokens>,
    judged: Arc<Mutex<HashMap<[u8; 32], Peer>>>,
}

impl Authenticator {
    /// Trusts the cluster's client and front-proxy authorities and its service-account keys.
    pub fn new(keys: &ClusterKeys, tokens: Arc<ServiceAccountTokens>) -> Result<Authenticator, PkiError> {
        Ok(Authenticator {
            clients: Arc::new(x509::ChainVerifier::new(&keys.client_ca.certificate_pem)?),
            front_proxies: Arc::new(x509::ChainVerifier::new(&keys.front_proxy_ca.certificate_pem)?),
            tokens,
            judged: Arc::default(),
        })
    }

    /// The service-account tokens.
    pub fn tokens(&self) -> &Arc<ServiceAccountTokens> {
        &self.tokens
    }

    /// Judges the certificates of a connection. Good ones are remembered (their end is looked at for each request).
    pub fn peer(&self, chain: &[rustls_pki_types::CertificateDer<'_>], now: Timestamp) -> Peer {
        if chain.is_empty() {
            return Peer::None;
        }
        let mut digest = Sha256::new();
        chain.iter().for_each(|certificate| digest.update(certificate));
        let digest: [u8; 32] = digest.finalize().into();
        if let Some(peer) = self.judged.lock().get(&digest) {
            return peer.clone();
        }
        let peer = x509::judge(chain, &self.clients, &self.front_proxies, now);
        if matches!(peer, Peer::Client { .. } | Peer::FrontProxy { .. }) {
            let mut judged = self.judged.lock();
            if judged.len() >= JUDGED_MAX {
                judged.clear();
            }
            judged.insert(digest, peer.clone());
        }
        peer
    }

    /// Finds the identity of a request, or refuses with 401.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap, path: &str, now: Timestamp) -> Result<UserInfo, Box<Status>> {
        if peer.is_front_proxy(now)
            && let Some(user) = front_proxy::user(headers)
        {
            return Ok(authenticated(user));
        }
        if let Some(user) = peer.client(now) {
            return Ok(authenticated(user.clone()));
        }
        let bearer = bearer_token(headers);
        if let Some(token) = &bearer {
            return match self.tokens.authenticate(token, &[], now).await {
                Ok(found) => Ok(authenticated(found.user)),
                Err(reason) => {
                    tracing::debug!(%reason, "bearer token refused");
                    Err(unauthorized())
                }
            };
        }
        let presented = peer.was_presented() || headers.contains_key(AUTHORIZATION);
        if !presented && ANONYMOUS_PATHS.contains(&path) {
            return Ok(UserInfo::anonymous());
        }
        Err(unauthorized())
    }
}

/// The 401 that every refused credential gets: it tells nothing about the reason.
pub fn unauthorized() -> Box<Status> {
    Box::new(Status::unauthorized("Unauthorized"))
}

/// Adds the group of everybody who proved an identity.
fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(GROUP_AUTHENTICATED) {
        user.groups.push(GROUP_AUTHENTICATED.to_owned());
    }
    user
}

/// The bearer token of a request: from the Authorization header, or (browsers cannot set that on a WebSocket)
/// from a subprotocol.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
    let offered = headers.get_all("sec-websocket-protocol").iter().filter_map(|value| value.to_str().ok());
    let encoded = offered.flat_map(|value| value.split(',')).find_map(|p| p.trim().strip_prefix(PROTOCOL))?;
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(decoded).ok().filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
