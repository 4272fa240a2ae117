//! The body of the `token` subresource of service accounts.

use serde_json::Value;

use crate::default::{Lit::I, Set, fill};
use crate::resource::Kind;
use crate::validate::At;

/// A request for a token.
pub(crate) struct TokenRequest;

impl Kind for TokenRequest {
    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("spec", "expirationSeconds", I(3600))]);
    }

    fn validate(&self, object: &At<'_>) {
        token_request(object);
    }
}

/// The body of `serviceaccounts/token`.
fn token_request(object: &At<'_>) {
    let seconds = object.at("spec").at("expirationSeconds");
    match seconds.int() {
        Some(value) if value < 600 => seconds.invalid("may not specify a duration less than 10 minutes"),
        Some(value) if value > 1 << 32 => seconds.invalid("may not specify a duration larger than 2^32 seconds"),
        _ => {}
    }
}
