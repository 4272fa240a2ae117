//! Service-account tokens: signed by the cluster's key, bound to objects that must still exist.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens>
//! and KEP-1205. The claims are upstream's, so that other verifiers (and our successors) read them.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trireme_api::{meta, time};

pub use crate::authn::bound::Bound;
use crate::authn::legacy_token::{self, LegacyClaims};
use crate::authn::signing_key::{self, SigningKey};
use crate::authz::rbac::SERVICE_ACCOUNT_PREFIX;
use crate::storage::lookup::ObjectReader;
use crate::user::UserInfo;

/// Verified signatures that are remembered; they are dropped together when the table is full.
const REMEMBERED_MAX: usize = 1024;
/// A bound object that is being deleted keeps its tokens alive for this long.
const DELETION_LEEWAY_SECS: i64 = 60;
/// No token of ours is longer; longer ones are not even decoded.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The private claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// Namespace of the service account.
    pub namespace: String,
    /// The node on which the pod runs, or the bound node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    /// The bound pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    /// The bound secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    /// The service account.
    pub serviceaccount: Bound,
    /// When a client should have rotated the token, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    pub aud: Vec<String>,
    /// Expiry, seconds since the epoch.
    pub exp: i64,
    /// Issued at.
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// Token id.
    pub jti: String,
    /// What binds it to this cluster's objects.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// Not before.
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// A token that was found good.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The user that it authenticates.
    pub user: UserInfo,
    /// The audiences asked for that it is meant for.
    pub audiences: Vec<String>,
}

/// The claims of a token whose signature is good.
#[derive(Clone)]
enum Verified {
    Bound(Arc<Claims>),
    Legacy(Arc<LegacyClaims>),
}

/// Mints and verifies tokens.
pub struct ServiceAccountTokens {
    issuer: String,
    audiences: Vec<String>,
    keys: Vec<SigningKey>,
    reader: Arc<dyn ObjectReader>,
    remembered: Mutex<HashMap<[u8; 32], Verified>>,
}

impl ServiceAccountTokens {
    /// Tokens of `issuer`, accepted for `audiences` (the issuer itself when empty). The first of
    /// `keys` signs.
    pub fn new(
        issuer: impl Into<String>,
        mut audiences: Vec<String>,
        keys: Vec<SigningKey>,
        reader: Arc<dyn ObjectReader>,
    ) -> ServiceAccountTokens {
        let issuer = issuer.into();
        if audiences.is_empty() {
            audiences.push(issuer.clone());
        }
        ServiceAccountTokens { issuer, audiences, keys, reader, remembered: Mutex::default() }
    }

    /// The issuer that a cluster of this domain uses.
    pub fn default_issuer(cluster_domain: &str) -> String {
        format!("https://kubernetes.default.svc.{cluster_domain}")
    }

    /// The issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audiences of the API server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub(super) fn reader(&self) -> &Arc<dyn ObjectReader> {
        &self.reader
    }

    /// The document behind `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        signing_key::jwks(&self.keys)
    }

    /// The document behind `/.well-known/openid-configuration`; `server` is the advertised address with its port.
    pub fn openid_configuration(&self, server: &str) -> Value {
        signing_key::openid_configuration(&self.issuer, &format!("https://{server}/openid/v1/jwks"))
    }

    /// Signs a token.
    pub fn sign(&self, claims: &Claims) -> Result<String, String> {
        self.sign_claims(claims)
    }

    /// Signs a token that does not expire, for a Secret to hold.
    pub fn sign_legacy(&self, claims: &LegacyClaims) -> Result<String, String> {
        self.sign_claims(claims)
    }

    fn sign_claims<C: Serialize>(&self, claims: &C) -> Result<String, String> {
        let key = self.keys.first().ok_or("no service-account key")?;
        let header = json!({"alg": "ES256", "kid": key.key_id()});
        let claims = serde_json::to_vec(claims).map_err(|error| format!("claims: {error}"))?;
        let input = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()), BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = key.sign(input.as_bytes())?;
        Ok(format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Judges a token for one of `audiences` (the API server's own when empty). The error is for logs and
    /// TokenReview, not for the bearer.
    pub async fn authenticate(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Authenticated, String> {
        let claims = match self.verified(token)? {
            Verified::Bound(claims) => claims,
            Verified::Legacy(claims) => return self.authenticate_legacy(&claims, token, audiences, now).await,
        };
        self.check_times(&claims, now)?;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let matching: Vec<_> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if matching.is_empty() {
            return Err(format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud));
        }
        if let Err(first) = self.check_objects(&claims, now) {
            // An object that is missing here may have been created through another server a moment ago.
            if !self.reader.refresh().await {
                return Err(first);
            }
            self.check_objects(&claims, now)?;
        }
        Ok(Authenticated { user: user_of(&claims), audiences: matching })
    }

    /// A token without an audience is meant for the API server.
    async fn authenticate_legacy(
        &self,
        claims: &LegacyClaims,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Authenticated, String> {
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let matching: Vec<_> = wanted.iter().filter(|audience| self.audiences.contains(audience)).cloned().collect();
        if matching.is_empty() {
            return Err(format!("the token is for the API server, not for the target audiences {wanted:?}"));
        }
        if let Err(first) = self.check_legacy_objects(claims, token, now) {
            // An object that is missing here may have been created through another server a moment ago.
            if !self.reader.refresh().await {
                return Err(first);
            }
            self.check_legacy_objects(claims, token, now)?;
        }
        let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", claims.namespace)];
        let user = UserInfo { name: claims.sub.clone(), uid: claims.account_uid.clone(), groups, ..UserInfo::default() };
        Ok(Authenticated { user, audiences: matching })
    }

    fn check_legacy_objects(&self, claims: &LegacyClaims, token: &str, now: Timestamp) -> Result<(), String> {
        if claims.sub != format!("{SERVICE_ACCOUNT_PREFIX}{}:{}", claims.namespace, claims.account) {
            return Err("subject does not match the service account".to_owned());
        }
        let secret = self.reader.get("", "secrets", &claims.namespace, &claims.secret);
        claims.check_secret(secret.as_ref().map(|found| &*found.object), token)?;
        self.check_one("serviceaccounts", &claims.namespace, &claims.account(), now)
    }

    /// The claims, if the signature is ours.
    fn verified(&self, token: &str) -> Result<Verified, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("token is too long".to_owned());
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.remembered.lock().get(&digest) {
            return Ok(claims.clone());
        }
        let claims = self.decode(token)?;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, claims.clone());
        Ok(claims)
    }

    fn decode(&self, token: &str) -> Result<Verified, String> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            #[serde(default)]
            kid: String,
        }
        const INVALID: &str = "invalid bearer token";
        let (input, signature) = token.rsplit_once('.').ok_or(INVALID)?;
        let (header, payload) = input.split_once('.').ok_or(INVALID)?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| INVALID.to_owned());
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| INVALID)?;
        if header.alg != "ES256" {
            return Err(format!("signature algorithm {:?} is not accepted", header.alg));
        }
        let signature = decode(signature)?;
        let ours =
            self.keys.iter().any(|key| (header.kid.is_empty() || header.kid == key.key_id()) && key.verify(input.as_bytes(), &signature));
        if !ours {
            return Err(INVALID.to_owned());
        }
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        let payload = decode(payload)?;
        let issued: Issued = serde_json::from_slice(&payload).map_err(|_| INVALID)?;
        if issued.iss == legacy_token::ISSUER {
            let claims: LegacyClaims = serde_json::from_slice(&payload).map_err(|_| INVALID)?;
            return Ok(Verified::Legacy(Arc::new(claims)));
        }
        if issued.iss != self.issuer {
            return Err(format!("issuer {:?} is not ours", issued.iss));
        }
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| INVALID)?;
        Ok(Verified::Bound(Arc::new(claims)))
    }

    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<(), String> {
        let now = now.as_second();
        if now >= claims.exp {
            return Err("service account token has expired".to_owned());
        }
        // Another server's clock may be a little ahead of ours.
        if now + DELETION_LEEWAY_SECS < claims.nbf {
            return Err("service account token is not valid yet".to_owned());
        }
        Ok(())
    }

    fn check_objects(&self, claims: &Claims, now: Timestamp) -> Result<(), String> {
        let bound = &claims.kubernetes;
        let namespace = bound.namespace.as_str();
        self.check_one("serviceaccounts", namespace, &bound.serviceaccount, now)?;
        if claims.sub != format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", bound.serviceaccount.name) {
            return Err("subject does not match the bound service account".to_owned());
        }
        if let Some(secret) = &bound.secret {
            self.check_one("secrets", namespace, secret, now)?;
        }
        if let Some(pod) = &bound.pod {
            self.check_one("pods", namespace, pod, now)?;
        } else if let Some(node) = &bound.node {
            // A token is bound to the node only if it names no pod; otherwise the node is only information.
            self.check_one("nodes", "", node, now)?;
        }
        Ok(())
    }

    fn check_one(&self, plural: &str, namespace: &str, bound: &Bound, now: Timestamp) -> Result<(), String> {
        let Some(found) = self.reader.get("", plural, namespace, &bound.name) else {
            return Err(format!("{plural} \"{namespace}/{}\" that the token is bound to does not exist", bound.name));
        };
        if meta::uid(&found.object) != bound.uid {
            return Err(format!("{plural} \"{namespace}/{}\" is not the one that the token is bound to", bound.name));
        }
        let deleted = meta::deletion_timestamp(&found.object).and_then(time::parse);
        if deleted.is_some_and(|at| at.as_second() + DELETION_LEEWAY_SECS < now.as_second()) {
            return Err(format!("{plural} \"{namespace}/{}\" has been deleted", bound.name));
        }
        Ok(())
    }
}

fn user_of(claims: &Claims) -> UserInfo {
    const PREFIX: &str = "authentication.kubernetes.io";
    let bound = &claims.kubernetes;
    let mut user = UserInfo {
        name: claims.sub.clone(),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", bound.namespace)],
        ..UserInfo::default()
    };
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("{PREFIX}/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &bound.pod {
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        add("node-name", &node.name);
        add("node-uid", &node.uid);
    }
    user
}
