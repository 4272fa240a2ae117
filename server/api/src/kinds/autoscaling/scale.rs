//! The body of the `scale` subresource.

use serde_json::Value;

use crate::default::{Lit::*, Set, fill};
use crate::resource::Kind;
use crate::validate::At;

/// How many replicas are wanted and there.
pub(crate) struct Scale;

impl Kind for Scale {
    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("status", "replicas", I(0))]);
    }

    fn validate(&self, object: &At<'_>) {
        scale(object);
    }
}

/// The body of `scale`.
fn scale(object: &At<'_>) {
    object.at("spec").at("replicas").non_negative();
}
