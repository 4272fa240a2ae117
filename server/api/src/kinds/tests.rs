//! Tests of the built-in kinds, through the definitions that the API server uses.
#![allow(clippy::unwrap_used)]

mod certificates;
mod convert;
mod default;
mod finalizers;
mod metadata;
mod prepare;
mod table;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{builtin, of};
use crate::gvk::GroupVersionKind;
use crate::resource::{Definition, Schema};
use crate::resources;
use crate::time::Timestamp;

/// The definition of a kind, with a resource made up for bodies of requests.
fn definition(gvk: &GroupVersionKind) -> Definition {
    let resource = resources::find_kind(&gvk.group, &gvk.kind).unwrap_or_else(|| resources::find("", "bindings").unwrap());
    let mut resource = resource.clone();
    resource.storage.version = gvk.version.clone();
    Definition::new(Arc::new(resource), Schema::Builtin, of(&gvk.group, &gvk.kind))
}

fn now() -> Timestamp {
    crate::time::parse("2024-01-01T01:00:00Z").unwrap()
}

#[test]
fn every_line_of_the_list_is_a_kind_that_is_served_or_a_body() {
    let served: BTreeSet<(&str, &str)> =
        resources::builtin().iter().map(|resource| (resource.group.as_ref(), resource.kind.as_ref())).collect();
    let bodies: BTreeSet<(&str, &str)> = resources::builtin()
        .iter()
        .flat_map(|resource| resource.subresources.iter())
        .map(|sub| (sub.group.as_ref(), sub.kind.as_ref()))
        .collect();
    let listed: Vec<(&str, &str)> = super::KINDS.iter().map(|(group, kind, _)| (*group, *kind)).collect();
    for key in &listed {
        assert!(served.contains(key) || bodies.contains(key), "{key:?} is served nowhere");
    }
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "no kind twice");
}

#[test]
fn every_stored_kind_has_a_line() {
    for definition in builtin().iter().filter(|definition| definition.resource.is_stored()) {
        let (group, kind) = (definition.resource.group.as_ref(), definition.resource.kind.as_ref());
        assert!(super::KINDS.iter().any(|(g, k, _)| (*g, *k) == (group, kind)), "{group}/{kind} has no home");
    }
}
