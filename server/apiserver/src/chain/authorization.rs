//! Authorizes the request: a refusal becomes upstream's 403.
//!
//! Answers to upstream's `WithAuthorization`.

use crate::attributes::Attributes;
use crate::error::Answer;
use crate::server::Server;

/// Asks the authorizer.
pub async fn authorize(server: &Server, attributes: &Attributes) -> Answer<()> {
    let outcome = server.security.authorizer.require(attributes).await;
    let decision = if outcome.is_ok() { "allowed" } else { "denied" };
    server.metrics.authorizations.with_label_values(&[decision, "union", "RBAC"]).inc();
    outcome
}
