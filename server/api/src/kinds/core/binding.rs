//! The body of a pod's `binding` subresource.

use crate::resource::Kind;
use crate::validate::At;

/// A pod's node, as the scheduler chose it.
pub(crate) struct Binding;

impl Kind for Binding {
    fn validate(&self, object: &At<'_>) {
        binding(object);
    }
}

/// The `binding` subresource of a pod.
fn binding(object: &At<'_>) {
    let target = object.at("target");
    if target.at("kind").is_full() && target.at("kind").text() != "Node" {
        target.at("kind").not_supported(&["Node", "<empty>"]);
    }
    if target.at("name").text().is_empty() {
        target.at("name").required("");
    }
}
