//! Authenticates the request: sets the user that every later filter reads.
//!
//! Owns that credentials are removed here: requests that are proxied to a node or a pod carry none of them. Answers to upstream's
//! `WithAuthentication`.

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use crate::authn::bearer;
use crate::chain::call::Call;
use crate::error::Answer;
use crate::server::Server;

/// Authenticates a request from the network.
pub async fn filter(server: &Server, call: &mut Call) -> Answer<()> {
    if !call.in_process {
        let outcome = server.security.authenticator.authenticate(&call.peer, &call.headers, &call.info.path, Timestamp::now()).await;
        server.metrics.authentications.with_label_values(&[if outcome.is_ok() { "success" } else { "failure" }]).inc();
        call.user = outcome?;
    }
    remove_credentials(&mut call.headers);
    Ok(())
}

/// Removes what proves an identity to this server.
fn remove_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let proxied: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in proxied {
        headers.remove(name);
    }
    if let Some(protocols) = bearer::other_protocols(headers) {
        match HeaderValue::from_str(&protocols) {
            Ok(value) if !protocols.is_empty() => headers.insert(SEC_WEBSOCKET_PROTOCOL, value),
            _ => headers.remove(SEC_WEBSOCKET_PROTOCOL),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_13_no_credential_is_left_in_the_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.insert("x-remote-user", HeaderValue::from_static("admin"));
        headers.insert("x-remote-extra-a", HeaderValue::from_static("b"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("base64url.bearer.authorization.k8s.io.abc, v4.channel.k8s.io"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io"));
        remove_credentials(&mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "v4.channel.k8s.io,v5.channel.k8s.io");
    }
}
