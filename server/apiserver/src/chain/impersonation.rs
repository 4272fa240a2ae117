//! `Impersonate-*` headers: the rest of the chain sees the impersonated user.
//!
//! Answers to upstream's `WithImpersonation`. Parts of this process act under their own identity only.

use crate::authn::impersonation;
use crate::chain::call::Call;
use crate::error::Answer;
use crate::server::Server;

/// Replaces the user if the headers ask for it and the authorizer allows it. The headers end here.
pub async fn filter(server: &Server, call: &mut Call) -> Answer<()> {
    if !call.in_process
        && let Some(other) = impersonation::impersonate(&server.security.authorizer, &call.user, &call.headers).await?
    {
        if let Some(record) = &mut call.record {
            record.impersonates(&other);
        }
        call.user = other;
    }
    let headers: Vec<_> = call.headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in headers {
        call.headers.remove(name);
    }
    Ok(())
}
