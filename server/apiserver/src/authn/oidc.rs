//! OpenID Connect tokens: users that an identity provider outside the cluster vouches for.
//!
//! Owns which tokens are believed: their issuer, audience, time and signature. What their claims say about the user is [`mapping`]'s business, and what a
//! server knows of a provider is in [`settings`]. The provider's keys are fetched when a token needs one that is not known, so the provider may be down
//! while a server starts, and may change its keys at any time.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens> and to upstream's
//! `apiserver/plugin/pkg/authenticator/token/oidc`. Distributed claims are not followed.

mod keys;
mod mapping;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::egress::fetch::fetch;
use crate::egress::{Egress, authority};
use crate::user::UserInfo;
pub use keys::ALGORITHMS;
use keys::Keys;
use mapping::Mapping;
pub use settings::{Authority, ClaimRule, ExpressionRule, OidcOptions, Settings, Source};

/// No token of a provider is longer; longer ones are not even decoded.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Keys are fetched this often at most, whatever tokens ask for.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// How far the provider's clock may be ahead.
const NOT_BEFORE_LEEWAY_SECS: i64 = 300;
/// Judges the tokens of one provider.
pub struct Oidc {
    settings: Settings,
    mapping: Mapping,
    egress: Arc<dyn Egress>,
    tls: Arc<rustls::ClientConfig>,
    known: Mutex<Known>,
    /// Held while the provider is asked.
    fetching: tokio::sync::Mutex<()>,
}

/// What is known of the provider's keys.
#[derive(Default)]
struct Known {
    keys: Arc<Keys>,
    fetched: Option<Instant>,
    /// Why they could not be fetched the last time.
    failure: Option<String>,
}

/// A token, taken apart. Nothing in it is believed yet.
struct Token<'a> {
    algorithm: String,
    key_id: Option<String>,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

// === impl Oidc ===

impl Oidc {
    /// Reads the authorities and compiles the expressions. The provider itself is not asked yet.
    ///
    /// # Errors
    /// Which file or expression cannot be used, and why.
    pub fn new(settings: Settings, egress: Arc<dyn Egress>) -> Result<Oidc, String> {
        let mapping = Mapping::compile(&settings)?;
        let roots = match &settings.authority {
            Authority::System => authority::system_roots()?,
            Authority::File(path) => authority::file_roots(path).map_err(|error| format!("{}: {error}", path.display()))?,
            Authority::Pem(pem) => authority::pem_roots(pem.as_bytes()).map_err(|error| format!("certificateAuthority: {error}"))?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
        let tls = Arc::new(tls);
        Ok(Oidc { settings, mapping, egress, tls, known: Mutex::default(), fetching: tokio::sync::Mutex::default() })
    }

    /// What it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a token says that it is from this provider.
    pub fn issued(&self, token: &str) -> bool {
        Token::parse(token).is_ok_and(|token| token.text("iss") == self.settings.issuer)
    }

    /// Judges a token. The error is for logs and TokenReview, not for the bearer.
    ///
    /// # Errors
    /// Why it is not good.
    pub async fn authenticate(&self, token: &str, now: Timestamp) -> Result<UserInfo, String> {
        let token = Token::parse(token)?;
        if !self.settings.algorithms.contains(&token.algorithm) {
            return Err(format!("oidc: the signature algorithm {:?} is not accepted", token.algorithm));
        }
        // First what costs nothing: only a token that could be good makes the server ask the provider.
        self.check(&token, now)?;
        let is_signed_by = |keys: &Keys| keys.verify(token.key_id.as_deref(), &token.algorithm, token.signed.as_bytes(), &token.signature);
        let known = self.known.lock().keys.clone();
        if !is_signed_by(&known) && !is_signed_by(&*self.current_keys().await?) {
            return Err("oidc: the signature is not good".to_owned());
        }
        self.mapping.user(&token.claims)
    }

    fn check(&self, token: &Token<'_>, now: Timestamp) -> Result<(), String> {
        let (settings, now) = (&self.settings, now.as_second());
        if token.text("iss") != settings.issuer {
            return Err(format!("oidc: issued by {:?}, not by {:?}", token.text("iss"), settings.issuer));
        }
        let audiences = token.claims.get("aud");
        let is_ours = |one: &Value| one.as_str().is_some_and(|one| settings.audiences.iter().any(|audience| audience == one));
        let is_meant = match audiences {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            one => one.is_some_and(is_ours),
        };
        if !is_meant {
            return Err(format!("oidc: expected audience in {:?} got {}", settings.audiences, audiences.unwrap_or(&Value::Null)));
        }
        let seconds = |claim: &str| token.claims.get(claim).and_then(Value::as_f64);
        match seconds("exp") {
            Some(end) if end > now as f64 => {}
            _ => return Err("oidc: the token has expired".to_owned()),
        }
        if seconds("nbf").is_some_and(|begin| begin > now.saturating_add(NOT_BEFORE_LEEWAY_SECS) as f64) {
            return Err("oidc: the token is not valid yet".to_owned());
        }
        Ok(())
    }

    /// The provider's keys, asked for unless it was a moment ago. Tokens that need no new keys do not wait for this.
    async fn current_keys(&self) -> Result<Arc<Keys>, String> {
        let _turn = self.fetching.lock().await;
        {
            let known = self.known.lock();
            if known.fetched.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
                return known.failure.clone().map_or_else(|| Ok(known.keys.clone()), Err);
            }
        }
        let fetched = self.fetch_keys().await;
        let mut known = self.known.lock();
        known.fetched = Some(Instant::now());
        known.failure = fetched.as_ref().err().cloned();
        match fetched {
            Ok(keys) => known.keys = Arc::new(keys),
            Err(why) => {
                tracing::warn!(issuer = self.settings.issuer, error = why, "the keys of the identity provider cannot be fetched");
                return Err(why);
            }
        }
        Ok(known.keys.clone())
    }

    async fn fetch_keys(&self) -> Result<Keys, String> {
        let issuer = &self.settings.issuer;
        let below = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = self.settings.discovery_url.clone().unwrap_or_else(below);
        let document = fetch(&*self.egress, self.tls.clone(), &url).await?;
        let document: Value = serde_json::from_slice(&document).map_err(|error| format!("{url}: {error}"))?;
        let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {:?}",
                text("issuer")
            ));
        }
        let keys = fetch(&*self.egress, self.tls.clone(), text("jwks_uri")).await?;
        Keys::parse(&keys).map_err(|error| format!("{}: {error}", text("jwks_uri")))
    }
}

// === impl Token ===

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Result<Token<'a>, String> {
        let malformed = || "oidc: the token is malformed".to_owned();
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let header: Map<String, Value> = serde_json::from_slice(&part(header)?).map_err(|_| malformed())?;
        let text = |field: &str| header.get(field).and_then(Value::as_str).map(str::to_owned);
        Ok(Token {
            algorithm: text("alg").unwrap_or_default(),
            key_id: text("kid"),
            claims: serde_json::from_slice(&part(claims)?).map_err(|_| malformed())?,
            signed,
            signature: part(signature)?,
        })
    }

    fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or_default()
    }
}
