//! The items of associative lists, indexed by their path element: the value (sets) or the key fields (keyed lists).

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::{PathElement, Scalar};
use super::topology::{Node, Relation};

/// The items of a list by their elements.
#[derive(Debug, Default)]
pub struct Items<'v> {
    /// The element of each item, in the order of the list.
    pub order: Vec<PathElement>,
    /// The items of each element: more than one where the list has it twice.
    pub by_element: BTreeMap<PathElement, Vec<&'v Value>>,
}

impl<'v> Items<'v> {
    /// Indexes the items of `list`, whose schema is `node`. Items without a path element are omitted and reported with their position.
    pub fn of(node: Node<'_>, relation: Relation, list: &'v [Value]) -> (Items<'v>, Vec<String>) {
        let (mut items, mut problems) = (Items::default(), Vec::new());
        let (keys, item_node) = (node.keys(), node.item());
        for (index, item) in list.iter().enumerate() {
            match element_of(relation, &keys, item_node, item) {
                Ok(element) => {
                    items.by_element.entry(element.clone()).or_default().push(item);
                    items.order.push(element);
                }
                Err(why) => problems.push(format!("element {index}: {why}")),
            }
        }
        (items, problems)
    }

    /// The only item of an element.
    pub fn single(&self, element: &PathElement) -> Option<&'v Value> {
        match self.by_element.get(element).map(Vec::as_slice) {
            Some([item]) => Some(item),
            _ => None,
        }
    }
}

/// The path element that identifies an item in its list. `keys` and `item_node` are those of the list.
///
/// # Errors
/// Upstream's words for why nothing does.
pub fn element_of(relation: Relation, keys: &[&str], item_node: Node<'_>, item: &Value) -> Result<PathElement, String> {
    match relation {
        Relation::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Relation::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Scalar::of(scalar).map(PathElement::Value).ok_or_else(|| "not a scalar".to_owned()),
        },
        Relation::Keyed => keyed(keys, item_node, item),
    }
}

fn keyed(keys: &[&str], item_node: Node<'_>, item: &Value) -> Result<PathElement, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut fields: Vec<(Box<str>, Scalar)> = Vec::with_capacity(keys.len());
    for key in keys {
        let value = match map.get(*key) {
            Some(value) => Some(Scalar::of(value).ok_or_else(|| format!("associative list has a key field {key:?} that is no scalar"))?),
            None => item_node.key_default(key),
        };
        // A key that is left out and has no default: an item with it is another one.
        fields.extend(value.map(|value| ((*key).into(), value)));
    }
    if fields.is_empty() {
        return Err(format!(
            "associative list with keys has an element that omits all key fields {} (and doesn't have default values for any key fields)",
            list_text(keys)
        ));
    }
    fields.sort();
    Ok(PathElement::Key(fields.into()))
}

/// Names as Go's `%q` prints a list of them.
fn list_text(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| crate::field::quote(name)).collect();
    format!("[{}]", quoted.join(" "))
}
