//! The tokens that let servers and agents join: `/trireme/v1/tokens`.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use jiff::Timestamp;
use trireme_api::admin::{NewToken, RotateToken, RotatedToken, TOKENS, TokenCreated, TokenList, TokenUsage};
use trireme_api::gvk::GroupResource;
use trireme_api::status::Status;

use crate::pki::ClusterKeys;
use crate::tokens::{LiveTokens, LiveTokensError, SECRET_LEN_MIN, Token, TokenRole, is_long_enough, random_secret};
use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::http::respond::Body;
use trireme_apiserver::{Answer, store_status};

/// Longer descriptions are no help to anybody.
const DESCRIPTION_LEN_MAX: usize = 200;

/// The endpoints of the tokens.
pub struct Tokens {
    tokens: LiveTokens,
    ca_fingerprint: String,
}

impl RouteFamily for Tokens {
    fn name(&self) -> &'static str {
        TOKENS
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        self.dispatch(request).boxed()
    }
}

impl Tokens {
    /// Those of the cluster with these keys.
    pub fn new(tokens: LiveTokens, keys: &ClusterKeys) -> Result<Tokens, crate::pki::PkiError> {
        Ok(Tokens { tokens, ca_fingerprint: keys.server_ca.fingerprint()? })
    }

    async fn dispatch(&self, request: RouteRequest) -> Answer<Response<Body>> {
        let now = Timestamp::now();
        match (&request.method, request.parts().as_slice()) {
            (&Method::GET, []) => {
                let tokens = self.tokens.list(now).map_err(refusal)?;
                json(&TokenList { tokens })
            }
            (&Method::POST, []) => self.create(&request.json()?, now).await,
            (&Method::POST, ["rotate"]) => self.rotate(request.json()?).await,
            (&Method::DELETE, [id]) => {
                self.tokens.delete(id).await.map_err(refusal)?;
                tracing::info!(token = id, user = request.user.name, "a token was deleted");
                json(&TokenList { tokens: self.tokens.list(now).map_err(refusal)? })
            }
            (_, [] | [_]) => Err(method_not_allowed(&request)),
            _ => Err(not_found()),
        }
    }

    async fn create(&self, wanted: &NewToken, now: Timestamp) -> Answer<Response<Body>> {
        if wanted.ttl_secs < 0 {
            return Err(Box::new(Status::bad_request("ttlSecs: a positive number is expected, or 0 for no end")));
        }
        if wanted.description.len() > DESCRIPTION_LEN_MAX || wanted.description.chars().any(char::is_control) {
            return Err(Box::new(Status::bad_request(format!("description: at most {DESCRIPTION_LEN_MAX} printable characters"))));
        }
        let usages = if wanted.usages.is_empty() { vec![TokenUsage::Agent] } else { wanted.usages.clone() };
        let made = self.tokens.create(usages, wanted.description.clone(), wanted.ttl_secs, now).await.map_err(refusal)?;
        tracing::info!(token = made.1.id, usages = ?made.1.usages, "a token was made");
        json(&TokenCreated { token: format!("K10{}::{}", self.ca_fingerprint, made.0), info: made.1 })
    }

    async fn rotate(&self, wanted: RotateToken) -> Answer<Response<Body>> {
        let secret = match wanted.secret {
            None => random_secret().map_err(|e| Box::new(Status::internal(e)))?,
            Some(text) => secret_of(&text)?,
        };
        let tokens = self.tokens.rotate(secret).await.map_err(refusal)?;
        tracing::info!("the server token was rotated");
        let full = |role| tokens.full(role, &self.ca_fingerprint).to_string();
        json(&RotatedToken { server_token: full(TokenRole::Server), node_token: full(TokenRole::Node) })
    }
}

/// The secret of a token that a person chose.
fn secret_of(text: &str) -> Answer<String> {
    let token: Token = text.parse().map_err(|e: crate::tokens::TokenError| Box::new(Status::bad_request(e.to_string())))?;
    let plain = token.secret.bytes().all(|b| b.is_ascii_graphic());
    if !is_long_enough(&token.secret) || !plain {
        let text = format!("secret: at least {SECRET_LEN_MIN} printable ASCII characters without blanks are expected");
        return Err(Box::new(Status::bad_request(text)));
    }
    Ok(token.secret)
}

fn refusal(error: LiveTokensError) -> Box<Status> {
    Box::new(match error {
        LiveTokensError::NotFound(_) => Status::failure(404, "NotFound", error.to_string()),
        LiveTokensError::Conflict(text) | LiveTokensError::Store(trireme_raft::StoreError::Conflict(text)) => {
            Status::failure(409, "Conflict", text)
        }
        LiveTokensError::Store(error) => store_status(&error, &GroupResource::new("trireme", TOKENS), "update"),
        error => Status::internal(error),
    })
}
