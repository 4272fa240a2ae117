//! Field sets against the schema as it is now.

use super::element::PathElement;
use super::set::{Branch, Set};
use super::topology::{Node, Relation, Shape};
use serde_json::Value;

/// The set with every struct field that has members below it as a member: what is to go with its last field.
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

/// The set with the fields below what has become one value since: its manager manages all of it now. None: nothing changes.
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
        // What has no type of its own is as it was written.
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
