//! The bearer token of a request: from the Authorization header, or (browsers cannot set that on a WebSocket) from a subprotocol.
//!
//! Answers to upstream's `authentication/request/bearertoken` and `authentication/request/websocket`.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

/// The subprotocol that carries a token, encoded.
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// What the headers say about a bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// The request has no token.
    None,
    /// The token.
    Token(String),
    /// The token is malformed.
    Invalid,
}

/// The bearer token of a request.
pub fn token(headers: &HeaderMap) -> Bearer {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| text.trim().split_once(' '));
        return match token {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
                Bearer::Token(token.trim().to_owned())
            }
            _ => Bearer::None,
        };
    }
    if !is_websocket(headers) {
        return Bearer::None;
    }
    let mut tokens = protocols(headers).filter_map(|protocol| protocol.strip_prefix(PROTOCOL));
    let Some(encoded) = tokens.next() else { return Bearer::None };
    // The token's protocol is taken out of the request: another one must be left to agree upon.
    if tokens.next().is_some() || other_protocols(headers).is_none_or(|others| others.is_empty()) {
        return Bearer::Invalid;
    }
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.filter(|token| !token.is_empty()).map_or(Bearer::Invalid, Bearer::Token)
}

/// The offered subprotocols without the one that carries a token; `None` if no such one is offered.
pub fn other_protocols(headers: &HeaderMap) -> Option<String> {
    protocols(headers).any(|protocol| protocol.starts_with(PROTOCOL)).then(|| {
        let others: Vec<&str> = protocols(headers).filter(|protocol| !protocol.starts_with(PROTOCOL)).collect();
        others.join(",")
    })
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty())
}

/// Whether the request asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).and_then(|value| value.to_str().ok()).is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], want: Bearer) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        assert_eq!(token(&map), want, "{headers:?}");
    }

    #[test]
    fn tokens_are_found_where_upstream_finds_them() {
        let offer = |encoded: &str| format!("{PROTOCOL}{encoded}, x");
        let found = || Bearer::Token("abc".to_owned());
        check(&[], Bearer::None);
        check(&[("authorization", "bearer  abc ")], found());
        check(&[("authorization", "Basic abc")], Bearer::None);
        check(&[("upgrade", "WebSocket"), ("sec-websocket-protocol", &offer("YWJj"))], found());
        check(&[("sec-websocket-protocol", &offer("YWJj"))], Bearer::None);
        check(&[("upgrade", "websocket"), ("sec-websocket-protocol", &format!("{PROTOCOL}YWJj"))], Bearer::Invalid);
        check(&[("upgrade", "websocket"), ("sec-websocket-protocol", &offer("%"))], Bearer::Invalid);
        let two = format!("{}, {}", offer("YWJj"), offer("YWJj"));
        check(&[("upgrade", "websocket"), ("sec-websocket-protocol", &two)], Bearer::Invalid);
    }
}
