//! Tests of the whole: laws of sets, what applying guarantees, and what writes record.

mod apply;
mod managers;
mod sets;

use std::borrow::Cow;

use serde_json::Value;

use super::topology::Node;
use super::track::Writer;
use super::untracked::Untracked;
use super::versions::Versions;
use crate::custom::structural::Structural;
use crate::gvk::GroupVersion;

/// A schema with everything that merges in a way of its own.
pub fn schema() -> Structural {
    Structural::parse(&serde_json::json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "integer"}, "b": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "raw": {"type": "array", "items": {"type": "integer"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"], "items": {
            "type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer", "default": 80}, "x": {"type": "integer"},
                "inner": {"type": "object", "properties": {"p": {"type": "string"}, "q": {"type": "string"}}}}}},
    }}}}))
    .unwrap()
}

/// A custom resource of one version.
pub struct Custom(pub Structural);

impl Versions for Custom {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        (api_version == "example.com/v1").then(|| Node::of_custom(&self.0))
    }

    fn convert<'v>(&self, object: &'v Value, _api_version: &str) -> Result<Cow<'v, Value>, String> {
        Ok(Cow::Borrowed(object))
    }
}

/// A built-in kind; its versions differ in nothing.
pub struct Builtin(pub &'static str);

impl Versions for Builtin {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        let version = GroupVersion::parse(api_version)?;
        Node::of_kind(&version.group, &version.version, self.0)
    }

    fn convert<'v>(&self, object: &'v Value, _api_version: &str) -> Result<Cow<'v, Value>, String> {
        Ok(Cow::Borrowed(object))
    }
}

/// A writer of `versions` at the second `time`.
pub fn writer<'a>(versions: &'a dyn Versions, api_version: &'a str, time: &'a str) -> Writer<'a> {
    Writer { versions, api_version, subresource: "", untracked: Untracked::Only(&["status"]), time }
}

/// The entry of a manager.
pub fn entry<'v>(object: &'v Value, manager: &str) -> Option<&'v Value> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().find(|entry| entry["manager"] == manager)
}
