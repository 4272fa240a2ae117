//! Removes a set of fields from an object.

use serde_json::{Map, Value};

use super::element::PathElement;
use super::items::element_of;
use super::set::Set;
use super::topology::{Node, Relation, Shape};

/// The object without the fields of `fields`. Lists and maps that become empty stay.
pub fn remove(node: Node<'_>, value: &Value, fields: &Set) -> Value {
    if fields.is_empty() {
        return value.clone();
    }
    match (node.shape(value), value) {
        (Shape::Map { is_atomic: false }, Value::Object(map)) => Value::Object(from_map(node, map, fields)),
        (Shape::List(relation @ (Relation::Set | Relation::Keyed)), Value::Array(items)) => {
            Value::Array(from_list(node, relation, items, fields))
        }
        _ => value.clone(),
    }
}

fn from_map(node: Node<'_>, map: &Map<String, Value>, fields: &Set) -> Map<String, Value> {
    let mut left = Map::new();
    for (name, value) in map {
        let kept = match fields.branch(&PathElement::field(name)) {
            Some(branch) if branch.is_member => continue,
            Some(branch) => remove(node.member(name).map_or(Node::Untyped, |member| member.node), value, &branch.below),
            None => value.clone(),
        };
        left.insert(name.clone(), kept);
    }
    left
}

fn from_list(node: Node<'_>, relation: Relation, items: &[Value], fields: &Set) -> Vec<Value> {
    let (keys, item_node) = (node.keys(), node.item());
    let mut left = Vec::with_capacity(items.len());
    for item in items {
        let branch = element_of(relation, &keys, item_node, item).ok().and_then(|element| fields.branch(&element));
        match branch {
            Some(branch) if branch.is_member => {}
            Some(branch) => left.push(remove(item_node, item, &branch.below)),
            None => left.push(item.clone()),
        }
    }
    left
}
