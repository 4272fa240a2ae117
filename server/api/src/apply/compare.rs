//! Computes which fields differ between two states of an object: those removed, modified and added.
//!
//! Owns the comparison only. Which manager gains or loses fields by it is decided in `track.rs`; how a value is compared (as a whole,
//! member by member, item by item) is read from the schema in `topology.rs`. It follows `Compare` of upstream's
//! `structured-merge-diff/typed`: atomic maps and lists and scalars are leaves, which differ as a whole; granular maps are compared
//! by their keys, sets by their values and keyed lists by their key fields.
//!
//! Sets are built from the leaves up, in the order of the objects' keys, so the time of a comparison grows with the size of both states.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::element::PathElement;
use super::items::Items;
use super::set::{Branch, Set};
use super::topology::{Node, Relation, Shape};

/// The fields that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that only the old state has.
    pub removed: Set,
    /// Fields that both states have, with different values.
    pub modified: Set,
    /// Fields that only the new state has.
    pub added: Set,
}

/// The value of one field in one of the two states.
#[derive(Clone, Copy, Debug)]
pub enum Side<'v> {
    /// The field is not there.
    Absent,
    /// The field is present with the zero value of its type, although the JSON omits it: Go types hold such fields by value.
    Zero,
    /// The field has a value.
    Is(&'v Value),
}

/// The result of comparing one field.
#[derive(Default)]
struct Found {
    /// The change of the field itself.
    here: Option<Change>,
    /// The changes of the fields below it.
    below: Comparison,
    /// Whether the field was compared as a whole, so that `here` is final. If the type of the value changed, it may have changes
    /// below it nevertheless: those of the type that has members.
    is_leaf: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Removed,
    Modified,
}

/// Compares two values that `node` of the schema describes. The root itself is never a member of the sets.
pub fn compare(node: Node<'_>, old: Side<'_>, new: Side<'_>) -> Comparison {
    at(node, old, new).below
}

// === impl Comparison ===

impl Comparison {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// The fields that were added or modified.
    pub fn written(&self) -> Set {
        self.modified.union(&self.added)
    }

    /// Applies `filter` to each of the three sets.
    #[must_use]
    pub fn filtered(self, filter: impl Fn(Set) -> Set) -> Comparison {
        Comparison { removed: filter(self.removed), modified: filter(self.modified), added: filter(self.added) }
    }
}

// === impl Side ===

impl<'v> Side<'v> {
    fn is_absent(self) -> bool {
        matches!(self, Side::Absent)
    }

    fn value(self) -> Option<&'v Value> {
        match self {
            Side::Is(value) => Some(value),
            _ => None,
        }
    }

    fn map(self) -> Option<&'v Map<String, Value>> {
        self.value().and_then(Value::as_object)
    }

    fn list(self) -> Option<&'v [Value]> {
        self.value().and_then(Value::as_array).map(Vec::as_slice)
    }

    /// The value of the member `name`. `is_always_there`: upstream's encoder writes the field even if it is empty.
    fn member(self, name: &str, is_always_there: bool) -> Side<'v> {
        match self.map().and_then(|map| map.get(name)) {
            Some(value) => Side::Is(value),
            // Where the parent is present, a field that is never omitted counts as present with its zero value.
            None if is_always_there && !self.is_absent() => Side::Zero,
            None => Side::Absent,
        }
    }
}

fn shape_of(node: Node<'_>, side: Side<'_>) -> Shape {
    node.shape(side.value().unwrap_or(&Value::Null))
}

fn at(node: Node<'_>, old: Side<'_>, new: Side<'_>) -> Found {
    match (old, new) {
        (Side::Absent | Side::Zero, Side::Absent | Side::Zero) => return Found::default(),
        // Equal maps are found by walking them: comparing them here would read the whole subtree again at every level.
        (Side::Is(a), Side::Is(b)) if !a.is_object() && a == b => return Found::default(),
        _ => {}
    }
    let (before, after) = (shape_of(node, old), shape_of(node, new));
    let mut found = match (old, new) {
        (_, Side::Absent) => as_shape(node, before, old, new),
        (Side::Absent, _) => as_shape(node, after, old, new),
        (Side::Zero, _) => as_shape(node, after, old, new),
        (_, Side::Zero) => as_shape(node, before, old, new),
        _ if before == after => as_shape(node, after, old, new),
        // The type changed: compare once as each of the two types and unite the results.
        _ => {
            let (mut first, second) = (as_shape(node, before, old, new), as_shape(node, after, old, new));
            first.here = first.here.or(second.here);
            first.is_leaf |= second.is_leaf;
            first.below.removed = first.below.removed.union(&second.below.removed);
            first.below.modified = first.below.modified.union(&second.below.modified);
            first.below.added = first.below.added.union(&second.below.added);
            first
        }
    };
    if !found.is_leaf {
        found.here = match (old, new) {
            (Side::Absent, _) => Some(Change::Added),
            (_, Side::Absent) => Some(Change::Removed),
            _ => found.here,
        };
    }
    found
}

/// Compares the two values as values of the given shape; a value of another shape counts as an empty one.
fn as_shape(node: Node<'_>, shape: Shape, old: Side<'_>, new: Side<'_>) -> Found {
    match shape {
        Shape::Map { is_atomic: false } => {
            let (before, after) = (old.map(), new.map());
            // Without members, the values may still differ: one may be null and the other one `{}`.
            if before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty) {
                return leaf(old, new, true);
            }
            maps(node, old, new, before, after)
        }
        Shape::List(relation @ (Relation::Set | Relation::Keyed)) => {
            let (before, after) = (old.list().unwrap_or_default(), new.list().unwrap_or_default());
            if before.is_empty() && after.is_empty() {
                return leaf(old, new, false);
            }
            lists(node, relation, before, after)
        }
        _ => leaf(old, new, false),
    }
}

/// Compares two values as a whole.
fn leaf(old: Side<'_>, new: Side<'_>, is_map: bool) -> Found {
    let here = match (old, new) {
        (Side::Absent, Side::Absent) => None,
        (Side::Absent, _) => Some(Change::Added),
        (_, Side::Absent) => Some(Change::Removed),
        (Side::Zero, Side::Zero) => None,
        (Side::Zero, Side::Is(value)) | (Side::Is(value), Side::Zero) => (!is_zero(value, is_map)).then_some(Change::Modified),
        (Side::Is(a), Side::Is(b)) => (a != b).then_some(Change::Modified),
    };
    Found { here, below: Comparison::default(), is_leaf: true }
}

fn is_zero(value: &Value, is_map: bool) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => is_map && map.is_empty(),
        Value::Array(_) => false,
    }
}

/// The branches of the three sets while the members or items of one field are compared.
#[derive(Default)]
struct Branches {
    removed: Vec<Branch>,
    modified: Vec<Branch>,
    added: Vec<Branch>,
}

impl Branches {
    fn add(&mut self, element: &PathElement, found: Found) {
        let add = |branches: &mut Vec<Branch>, change: Change, below: Set| {
            let is_member = found.here == Some(change);
            if is_member || !below.is_empty() {
                branches.push(Branch { element: element.clone(), is_member, below });
            }
        };
        add(&mut self.removed, Change::Removed, found.below.removed);
        add(&mut self.modified, Change::Modified, found.below.modified);
        add(&mut self.added, Change::Added, found.below.added);
    }

    fn found(self) -> Found {
        let below = Comparison {
            removed: Set::from_branches(self.removed),
            modified: Set::from_branches(self.modified),
            added: Set::from_branches(self.added),
        };
        Found { here: None, below, is_leaf: false }
    }
}

fn maps(node: Node<'_>, old: Side<'_>, new: Side<'_>, before: Option<&Map<String, Value>>, after: Option<&Map<String, Value>>) -> Found {
    let mut branches = Branches::default();
    let mut visit = |name: &String| {
        let (node, is_always_there) = match node.member(name) {
            Some(member) => (member.node, member.is_always_there),
            // The schema does not name this member: its value is compared as a whole.
            None => (Node::Untyped, false),
        };
        let found = at(node, old.member(name, is_always_there), new.member(name, is_always_there));
        if found.here.is_some() || !found.below.is_empty() {
            branches.add(&PathElement::field(name), found);
        }
    };
    // Both maps are sorted: the two iterators are merged, so that names are visited in order and each once.
    let (mut left, mut right) = (before.into_iter().flat_map(Map::keys).peekable(), after.into_iter().flat_map(Map::keys).peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        a.or(b).into_iter().for_each(&mut visit);
    }
    branches.found()
}

fn lists(node: Node<'_>, relation: Relation, before: &[Value], after: &[Value]) -> Found {
    // Items without a path element (invalid or missing keys) cannot be owned and are ignored.
    let ((old, _), (new, _)) = (Items::of(node, relation, before), Items::of(node, relation, after));
    let item_node = node.item();
    let mut branches = Branches::default();
    let elements = old.by_element.keys().chain(new.by_element.keys().filter(|element| !old.by_element.contains_key(*element)));
    for element in elements {
        let count = |items: &Items<'_>| items.by_element.get(element).map_or(0, Vec::len);
        match (count(&old), count(&new)) {
            (0 | 1, 0 | 1) => branches.add(element, at(item_node, side_of(old.single(element)), side_of(new.single(element)))),
            // Duplicates in both states: the duplicates are compared together, as one value.
            (2.., 2..) => {
                if old.by_element.get(element) != new.by_element.get(element) {
                    branches.add(element, whole(Change::Modified));
                }
            }
            // Duplicates became a single item or none: the duplicates are removed, the single item counts as added.
            (2.., _) => {
                branches.add(element, at(item_node, Side::Absent, side_of(new.single(element))));
                branches.add(element, whole(Change::Removed));
            }
            // A single item or none became duplicates: the reverse.
            (_, 2..) => {
                branches.add(element, at(item_node, side_of(old.single(element)), Side::Absent));
                branches.add(element, whole(Change::Added));
            }
        }
    }
    branches.found()
}

fn side_of(value: Option<&Value>) -> Side<'_> {
    value.map_or(Side::Absent, Side::Is)
}

fn whole(change: Change) -> Found {
    Found { here: Some(change), below: Comparison::default(), is_leaf: true }
}
