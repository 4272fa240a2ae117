//! Authentication and authorization: certificates of the client CA, TokenReview and SubjectAccessReview, whose answers are cached for a
//! short time.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use trireme_client::Client;

/// Upstream's lifetimes.
const TOKEN_LIFE: Duration = Duration::from_secs(120);
const ALLOWED_LIFE: Duration = Duration::from_secs(300);
const DENIED_LIFE: Duration = Duration::from_secs(30);
/// Forget all rather than grow.
const MAX_REMEMBERED: usize = 1024;

/// A user as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct User {
    pub(super) name: String,
    groups: Vec<String>,
}

/// Who is at the other end of a connection, by its certificate.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(super) Option<User>);

impl Peer {
    /// The user in the first certificate of a verified chain: common name and organizations.
    pub(crate) fn of(chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let certificate = chain.and_then(|c| c.first()).and_then(|c| x509_parser::parse_x509_certificate(c).ok());
        Peer(certificate.and_then(|(_, certificate)| {
            let subject = certificate.subject();
            let name = subject.iter_common_name().next()?.as_str().ok()?.to_string();
            let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_string).collect();
            Some(User { name, groups })
        }))
    }
}

type TokenHash = [u8; 32];
/// An answer and until when it holds.
type Remembered<T> = (T, Instant);
type Question = (User, &'static str, &'static str);

/// Authenticates and authorizes.
pub(crate) struct Auth {
    client: Client,
    node_name: String,
    tokens: Mutex<HashMap<TokenHash, Remembered<Option<User>>>>,
    answers: Mutex<HashMap<Question, Remembered<bool>>>,
}

impl Auth {
    pub(crate) fn new(client: Client, node_name: &str) -> Auth {
        Auth { client, node_name: node_name.into(), tokens: Mutex::default(), answers: Mutex::default() }
    }

    pub(super) async fn user_of_token(&self, token: &str) -> Option<User> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some((user, _)) = self.tokens.lock().get(&key).filter(|(_, until)| Instant::now() < *until) {
            return user.clone();
        }
        let review = TokenReview { spec: TokenReviewSpec { token: token.into(), audiences: None }, ..Default::default() };
        let status = match self.client.create::<TokenReview>(None, &review).await {
            Ok(review) => review.status.unwrap_or_default(),
            Err(error) => {
                tracing::info!(%error, "token review");
                return None;
            }
        };
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|u| User { name: u.username.unwrap_or_default(), groups: u.groups.unwrap_or_default() });
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_REMEMBERED {
            tokens.clear();
        }
        tokens.insert(key, (user.clone(), Instant::now() + TOKEN_LIFE));
        user
    }

    pub(super) async fn is_allowed(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, trireme_client::Error> {
        let question = (user.clone(), verb, subresource);
        if let Some((allowed, _)) = self.answers.lock().get(&question).filter(|(_, until)| Instant::now() < *until) {
            return Ok(*allowed);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(self.node_name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let allowed = self.client.create::<SubjectAccessReview>(None, &review).await?.status.is_some_and(|s| s.allowed);
        let life = if allowed { ALLOWED_LIFE } else { DENIED_LIFE };
        let mut answers = self.answers.lock();
        if answers.len() >= MAX_REMEMBERED {
            answers.clear();
        }
        answers.insert(question, (allowed, Instant::now() + life));
        Ok(allowed)
    }
}
