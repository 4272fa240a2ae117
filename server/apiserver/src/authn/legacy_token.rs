//! Tokens of service accounts that do not expire: valid as long as the Secret that holds them exists.
//!
//! Answers to <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#legacy-serviceaccount-token-tracking>.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bound::Bound;

/// Who issues them.
pub const ISSUER: &str = "kubernetes/serviceaccount";

/// All claims of such a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyClaims {
    /// Always [`ISSUER`].
    pub iss: String,
    /// Namespace of the service account and of the Secret.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret that holds the token.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// The service account.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// Its UID.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

impl LegacyClaims {
    /// The claims of a token that this Secret is to hold.
    pub fn new(namespace: &str, account: &str, account_uid: &str, secret: &str) -> LegacyClaims {
        LegacyClaims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            account_uid: account_uid.to_owned(),
            sub: format!("{}{namespace}:{account}", crate::authz::rbac::SERVICE_ACCOUNT_PREFIX),
        }
    }

    /// The service account, as a token is bound to it.
    pub fn account(&self) -> Bound {
        Bound { name: self.account.clone(), uid: self.account_uid.clone() }
    }

    /// Whether this Secret holds the token, and is not being deleted.
    pub fn check_secret(&self, secret: Option<&Value>, token: &str) -> Result<(), String> {
        let place = format!("secret \"{}/{}\"", self.namespace, self.secret);
        let Some(secret) = secret else { return Err(format!("{place} that holds the token does not exist")) };
        if trireme_api::meta::deletion_timestamp(secret).is_some() {
            return Err(format!("{place} that holds the token is being deleted"));
        }
        let held = secret.pointer("/data/token").and_then(Value::as_str).unwrap_or_default();
        if held.is_empty() || held != BASE64_STANDARD.encode(token) {
            return Err(format!("{place} does not hold this token"));
        }
        Ok(())
    }
}
