//! Authentication: determines the user of a request.
//!
//! Order as upstream: the front proxy's headers, a client certificate, a bearer token, and anonymous for a
//! few paths only. An invalid credential results in 401 unless another one is valid.
//!
//! Owns: judging certificates after a handshake that accepts any (so that an expired or foreign one gets a
//! `Status`, not a TLS alert), service-account tokens, reviews, impersonation. Must not do: decide what an
//! identity may do, or keep sessions.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authentication/>.

pub mod anonymous;
pub mod bearer;
mod bootstrap_token;
pub mod bound;
pub mod configuration;
pub mod front_proxy;
pub mod impersonation;
pub mod legacy_token;
pub mod oidc;
pub mod providers;
pub mod review;
pub mod signing_key;
pub mod token;
pub mod token_request;
pub mod x509;

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use trireme_api::status::Status;

use crate::error::Error;
use crate::user::{GROUP_AUTHENTICATED, UserInfo};

pub use signing_key::SigningKey;
pub use token::{Authenticated, ServiceAccountTokens};
pub use x509::{Peer, accept_any_verifier};

use anonymous::Anonymous;
use bearer::Bearer;
use providers::Providers;

/// Good certificates that are remembered; they are dropped together when the table is full.
const JUDGED_MAX: usize = 4096;

/// All authenticators of the API server. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    clients: Arc<x509::ChainVerifier>,
    front_proxies: Arc<x509::ChainVerifier>,
    tokens: Arc<ServiceAccountTokens>,
    bootstrap_tokens: bool,
    providers: Option<Arc<Providers>>,
    judged: Arc<Mutex<HashMap<[u8; 32], Peer>>>,
}

impl Authenticator {
    /// Trusts these authorities of clients and of front proxies, and the service-account keys of `tokens`.
    pub fn new(
        clients: Vec<CertificateDer<'static>>,
        front_proxies: Vec<CertificateDer<'static>>,
        tokens: Arc<ServiceAccountTokens>,
    ) -> Result<Authenticator, Error> {
        Ok(Authenticator {
            clients: Arc::new(x509::ChainVerifier::new(clients)?),
            front_proxies: Arc::new(x509::ChainVerifier::new(front_proxies)?),
            tokens,
            bootstrap_tokens: false,
            providers: None,
            judged: Arc::default(),
        })
    }

    /// Accepts tokens of identity providers too, and requests without credentials as they say.
    pub fn with_providers(self, providers: Arc<Providers>) -> Authenticator {
        Authenticator { providers: Some(providers), ..self }
    }

    /// Whether bootstrap tokens are accepted too.
    pub fn with_bootstrap_tokens(self, bootstrap_tokens: bool) -> Authenticator {
        Authenticator { bootstrap_tokens, ..self }
    }

    /// Judges a bearer token for one of `audiences` (the API server's own when empty), from any issuer. The error is for logs and
    /// TokenReview, not for the bearer.
    ///
    /// # Errors
    /// Why it is not good.
    pub async fn judge_token(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Authenticated, String> {
        if let Some((id, secret)) = bootstrap_token::parse(token).filter(|_| self.bootstrap_tokens) {
            let audiences = self.own_audiences(audiences)?;
            return Ok(Authenticated { user: bootstrap_token::user(&**self.tokens.reader(), id, secret, now)?, audiences });
        }
        let Some(provider) = self.providers.as_ref().and_then(|providers| providers.issuer_of(token)) else {
            return self.tokens.authenticate(token, audiences, now).await;
        };
        let audiences = self.own_audiences(audiences)?;
        Ok(Authenticated { user: provider.authenticate(token, now).await?, audiences })
    }

    /// Those of `audiences` that a token has which is meant for the API server.
    fn own_audiences(&self, audiences: &[String]) -> Result<Vec<String>, String> {
        let own = self.tokens.audiences();
        let matching: Vec<String> = own.iter().filter(|one| audiences.is_empty() || audiences.contains(one)).cloned().collect();
        if matching.is_empty() {
            return Err(format!("token audiences {own:?} is invalid for the target audiences {audiences:?}"));
        }
        Ok(matching)
    }

    /// The service-account tokens.
    pub fn tokens(&self) -> &Arc<ServiceAccountTokens> {
        &self.tokens
    }

    /// Judges the certificates of a connection. Good ones are remembered (their end is looked at for each request).
    pub fn peer(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Peer {
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

    fn allows_anonymous(&self, path: &str) -> bool {
        self.providers.as_ref().map_or_else(|| Anonymous::default().allows(path), |providers| providers.allows_anonymous(path))
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
        match bearer::token(headers) {
            Bearer::Token(token) => {
                return match self.judge_token(&token, &[], now).await {
                    Ok(found) => Ok(authenticated(found.user)),
                    Err(reason) => {
                        tracing::debug!(%reason, "bearer token refused");
                        Err(unauthorized())
                    }
                };
            }
            Bearer::Invalid => return Err(unauthorized()),
            Bearer::None => {}
        }
        let presented = peer.was_presented() || headers.contains_key(AUTHORIZATION);
        if !presented && self.allows_anonymous(path) {
            return Ok(UserInfo::anonymous());
        }
        Err(unauthorized())
    }
}

/// The 401 that every refused credential gets: it tells nothing about the reason.
pub fn unauthorized() -> Box<Status> {
    Box::new(Status::unauthorized("Unauthorized"))
}

/// Adds the group `system:authenticated`.
fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(GROUP_AUTHENTICATED) {
        user.groups.push(GROUP_AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests;
