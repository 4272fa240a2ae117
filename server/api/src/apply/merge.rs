//! Merges a configuration into an object. Upstream: `Merge` of `structured-merge-diff/typed`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::PathElement;
use super::items::Items;
use super::topology::{Node, Relation, Shape};

/// Merges the configuration into the object. Both fit `node`; nothing is removed.
pub fn merge(node: Node<'_>, live: &Value, applied: &Value) -> Value {
    both(node, Some(live), Some(applied)).unwrap_or_else(|| Value::Object(Map::new()))
}

/// None: nothing is left of it.
fn both(node: Node<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let Some(applied) = applied else { return live.cloned() };
    match node.shape(applied) {
        Shape::Map { is_atomic: false } => {
            let (old, new) = (live.and_then(Value::as_object), applied.as_object());
            // If both are empty, the applied value is taken: it may be null where the object has `{}`.
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return Some(applied.clone());
            }
            maps(node, old, new)
        }
        Shape::List(relation @ (Relation::Set | Relation::Keyed)) => {
            let old = live.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let new = applied.as_array().map(Vec::as_slice).unwrap_or_default();
            if old.is_empty() && new.is_empty() {
                return Some(applied.clone());
            }
            lists(node, relation, old, new)
        }
        _ => Some(applied.clone()),
    }
}

fn maps(node: Node<'_>, live: Option<&Map<String, Value>>, applied: Option<&Map<String, Value>>) -> Option<Value> {
    let mut merged = Map::new();
    let mut take = |name: &String, value: Option<Value>| {
        if let Some(value) = value {
            merged.insert(name.clone(), value);
        }
    };
    let inner = |name: &str| node.member(name).map_or(Node::Untyped, |member| member.node);
    for (name, value) in live.into_iter().flatten() {
        take(name, both(inner(name), Some(value), applied.and_then(|applied| applied.get(name))));
    }
    for (name, value) in applied.into_iter().flatten() {
        if live.is_none_or(|live| !live.contains_key(name)) {
            take(name, both(inner(name), None, Some(value)));
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// Items of both keep the order in which the configuration has them. Items of the object alone stay where they were between those,
/// and before the new ones.
fn lists(node: Node<'_>, relation: Relation, live: &[Value], applied: &[Value]) -> Option<Value> {
    let ((old, _), (new, _)) = (Items::of(node, relation, live), Items::of(node, relation, applied));
    let item_node = node.item();
    let mut merge = Merge { item_node, old: &old, new: &new, out: Vec::with_capacity(live.len().max(applied.len())) };
    let mut shared: std::collections::VecDeque<&PathElement> =
        new.order.iter().filter(|element| old.by_element.contains_key(*element)).collect();
    let mut next = shared.pop_front();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    // For each position, the index of the item among the duplicates of its element.
    let mut taken: BTreeMap<&PathElement, usize> = BTreeMap::new();
    let (mut left, mut right) = (0, 0);
    while left < old.order.len() || right < new.order.len() {
        if let (Some(mine), Some(theirs)) = (old.order.get(left), new.order.get(right)) {
            if mine == theirs {
                done.insert(theirs);
                merge.applied(theirs);
                left += 1;
                right += 1;
                next = shared.pop_front();
                continue;
            }
            // Both sides have this item, but the configuration orders other shared items before it: it is added later.
            if new.by_element.contains_key(mine) && next.is_some_and(|next| next != mine) {
                left += 1;
                continue;
            }
        }
        if let Some(mine) = old.order.get(left) {
            if !new.by_element.contains_key(mine) {
                let at = taken.entry(mine).or_default();
                merge.kept(mine, *at);
                *at += 1;
                left += 1;
                continue;
            }
            if done.contains(mine) {
                left += 1;
            }
        }
        if let Some(theirs) = new.order.get(right) {
            done.insert(theirs);
            merge.applied(theirs);
            right += 1;
            if next == Some(theirs) {
                next = shared.pop_front();
            }
        }
    }
    (!merge.out.is_empty()).then_some(Value::Array(merge.out))
}

struct Merge<'a, 'v> {
    item_node: Node<'a>,
    old: &'a Items<'v>,
    new: &'a Items<'v>,
    out: Vec<Value>,
}

impl Merge<'_, '_> {
    /// Merges an item of the configuration into the object's item. If the object has duplicates of it, the item replaces them.
    fn applied(&mut self, element: &PathElement) {
        self.out.extend(both(self.item_node, self.old.single(element), self.new.single(element)));
    }

    /// An item that only the object has.
    fn kept(&mut self, element: &PathElement, at: usize) {
        self.out.extend(self.old.by_element.get(element).and_then(|same| same.get(at)).map(|item| (*item).clone()));
    }
}
