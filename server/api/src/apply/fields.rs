//! The set of fields in a configuration: those that its manager owns by applying it.

use serde_json::Value;

use super::element::PathElement;
use super::items::Items;
use super::set::{Branch, Set};
use super::topology::{Node, Shape};

/// The fields of `value`: its leaves, the items of its lists, the entries of its maps. Structs are not among them.
pub fn fields_of(node: Node<'_>, value: &Value) -> Set {
    at(node, value).1
}

/// Whether the value itself is a field, and the fields below it.
fn at(node: Node<'_>, value: &Value) -> (bool, Set) {
    match (node.shape(value), value) {
        (Shape::Map { is_atomic: false }, Value::Object(map)) => {
            let branches = map.iter().map(|(name, value)| {
                let member = node.member(name);
                let (mut is_member, below) = at(member.map_or(Node::Untyped, |member| member.node), value);
                let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                is_member |= is_empty || member.is_none_or(|member| !member.is_declared);
                Branch { element: PathElement::field(name), is_member, below }
            });
            (false, Set::from_branches(branches.collect()))
        }
        (Shape::List(relation), Value::Array(list)) if relation != super::topology::Relation::Atomic => {
            let (items, _) = Items::of(node, relation, list);
            let item_node = node.item();
            let branches = items.by_element.into_iter().map(|(element, same)| match same.as_slice() {
                [item] => Branch { element, is_member: true, below: at(item_node, item).1 },
                _ => Branch { element, is_member: true, below: Set::default() },
            });
            (false, Set::from_branches(branches.collect()))
        }
        // A null in place of a list or map is not a leaf: whether it counts as a field is decided by its parent.
        (Shape::Map { is_atomic: false } | Shape::List(super::topology::Relation::Set | super::topology::Relation::Keyed), Value::Null) => {
            (false, Set::default())
        }
        _ => (true, Set::default()),
    }
}
