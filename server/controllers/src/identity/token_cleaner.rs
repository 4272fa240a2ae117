//! Bootstrap tokens whose time is over are deleted.
//!
//! Answers to: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#bootstrap-token-secret-format>.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use trireme_client::{Client, DeleteOptions, InformerOptions, Object, ObjectKey, Preconditions};

use crate::Error;
use crate::runtime::clock;
use crate::runtime::{Context, Controller, Next, Part, Scope, Watches};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The Secrets that hold bootstrap tokens.
pub(crate) struct BootstrapTokens;

impl Scope for BootstrapTokens {
    fn options() -> InformerOptions {
        InformerOptions {
            namespace: Some(NAMESPACE.to_owned()),
            field_selector: Some(format!("type={TYPE}")),
            ..InformerOptions::default()
        }
    }
}

/// The token cleaner.
pub(crate) struct TokenCleaner {
    client: Client,
    tokens: Part<Secret, BootstrapTokens>,
}

impl Controller for TokenCleaner {
    const NAME: &'static str = "token-cleaner";
    const QUEUE: &'static str = "token_cleaner";
    type Key = ObjectKey;
    type Reads = Part<Secret, BootstrapTokens>;

    fn new(tokens: Self::Reads, context: &Context) -> Option<Self> {
        Some(Self { client: context.client.clone(), tokens })
    }

    fn watch(self: &std::sync::Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.tokens, |event| [ObjectKey::of(&**event.object())]);
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(secret) = self.tokens.get_key(key) else { return Ok(Next::Wait) };
        let Some(left) = secs_left(&secret, clock::now()) else { return Ok(Next::Wait) };
        if left > 0 {
            return Ok(Next::after_secs(Some(left)));
        }
        // In the revision that was looked at: the token may have been given more time.
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: secret.metadata.resource_version.clone() };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        match self.client.delete::<Secret>(Some(secret.namespace()), secret.name(), &options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Next::Wait),
        }
    }
}

/// Seconds until a token ends; none if it never does. An end that cannot be read is over.
fn secs_left(secret: &Secret, now: Timestamp) -> Option<i64> {
    let end = secret.data.as_ref()?.get("expiration").filter(|end| !end.0.is_empty())?;
    let end = std::str::from_utf8(&end.0).ok().and_then(|end| end.parse::<Timestamp>().ok());
    Some(end.map_or(0, |end| end.as_second() - now.as_second()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_token_ends_when_it_says_and_one_that_cannot_be_read_has_ended() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        let left = |end: Option<&str>| {
            let data = end.map(|end| [("expiration".to_owned(), ByteString(end.into()))].into());
            secs_left(&Secret { data, ..Secret::default() }, now)
        };
        assert_eq!(left(None), None);
        assert_eq!(left(Some("")), None);
        assert_eq!(left(Some("2030-01-01T00:01:00Z")), Some(60));
        assert_eq!(left(Some("2029-12-31T23:59:59Z")), Some(-1));
        assert_eq!(left(Some("soon")), Some(0));
    }
}
