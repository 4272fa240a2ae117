//! Adapts field sets to the current schema. Upstream: `fieldpath.Set.EnsureNamedFieldsAreMembers` and
//! `typed.ReconcileFieldSetWithSchema`.

use super::element::PathElement;
use super::set::{Branch, Set};
use super::topology::{Node, Relation, Shape};
use serde_json::Value;

/// Adds to the set every struct field with members below it, so that a struct is removed together with its last field.
pub fn with_named_fields(set: &Set, node: Option<Node<'_>>) -> Set {
    let branches = set.branches().iter().map(|branch| {
        let (is_named, inner) = match (&branch.element, node) {
            (PathElement::Field(name), Some(node)) => match node.member(name) {
                Some(member) => (member.is_declared, Some(member.node)),
                None => (false, None),
            },
            (PathElement::Key(_), Some(node)) => (false, Some(node.item())),
            _ => (false, None),
        };
        Branch {
            element: branch.element.clone(),
            is_member: branch.is_member || (is_named && !branch.below.is_empty()),
            below: with_named_fields(&branch.below, inner),
        }
    });
    Set::from_branches(branches.collect())
}

/// Replaces the fields below a list or map that has become atomic by the list or map itself: the manager now owns all of it. None if
/// the set stays as it is.
pub fn with_atomics(set: &Set, node: Node<'_>) -> Option<Set> {
    let mut changed = false;
    let settled = settle(set, node, &mut changed);
    changed.then_some(settled)
}

fn settle(set: &Set, node: Node<'_>, changed: &mut bool) -> Set {
    let branches = set.branches().iter().map(|branch| {
        let inner = match &branch.element {
            PathElement::Field(name) => node.member(name).map(|member| member.node),
            PathElement::Index(_) => None,
            PathElement::Key(_) | PathElement::Value(_) => Some(node.item()),
        };
        // Fields without a schema stay as they are in the set.
        let Some(inner) = inner.filter(|inner| matches!(inner, Node::Typed(..) | Node::Custom(..))) else { return branch.clone() };
        let is_atomic = matches!(inner.shape(&Value::Null), Shape::Map { is_atomic: true } | Shape::List(Relation::Atomic));
        if is_atomic && !branch.below.is_empty() {
            *changed = true;
            return Branch { element: branch.element.clone(), is_member: true, below: Set::default() };
        }
        Branch { element: branch.element.clone(), is_member: branch.is_member, below: settle(&branch.below, inner, changed) }
    });
    Set::from_branches(branches.collect())
}
