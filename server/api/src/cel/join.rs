//! Compares and joins lists of type `set` and `map`: the order of items is ignored, and items are unique.
//!
//! Upstream: `unstructuredMapList` and `unstructuredSetList` in `apiserver/pkg/cel/common/values.go`.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::KeyRef;

use super::budget::Budget;
use super::fault::Fault;
use super::listed::Listed;

/// Pairs of the items of two lists, in the order of `right`; None: they do not hold the same.
pub fn pairs<'a>(left: &'a Listed, right: &'a [Value], budget: &mut Budget) -> Result<Option<Vec<(&'a Value, &'a Value)>>, Fault> {
    if left.items.len() != right.len() {
        return Ok(None);
    }
    let places = places(left, budget)?;
    let mut pairs = Vec::with_capacity(right.len());
    for item in right {
        match places.get(&identity(&left.keys, item, budget)?).and_then(|at| left.items.get(*at)) {
            Some(own) => pairs.push((own, item)),
            None => return Ok(None),
        }
    }
    Ok(Some(pairs))
}

/// The items of both lists: one that is in both keeps its place on the left, and has the content that it has on the right.
pub fn join(left: &Listed, right: &[Value], budget: &mut Budget) -> Result<Value, Fault> {
    let mut places = places(left, budget)?;
    budget.spend(left.items.len().saturating_add(right.len()))?;
    let mut items = left.items.to_vec();
    for item in right {
        let identity = identity(&left.keys, item, budget)?;
        match places.get(&identity).and_then(|at| items.get_mut(*at)) {
            Some(own) => *own = item.clone(),
            None => {
                places.insert(identity, items.len());
                items.push(item.clone());
            }
        }
    }
    Ok(Listed { items: Arc::new(items), keys: left.keys.clone() }.into_value())
}

/// The position of each item, by its identity.
fn places(list: &Listed, budget: &mut Budget) -> Result<HashMap<String, usize>, Fault> {
    let identities = list.items.iter().enumerate().map(|(at, item)| Ok((identity(&list.keys, item, budget)?, at)));
    identities.collect()
}

/// The text that identifies an item in its list. Computing it takes from the budget.
fn identity(keys: &[String], item: &Value, budget: &mut Budget) -> Result<String, Fault> {
    let mut identity = String::new();
    if keys.is_empty() {
        budget.spend_value(item)?;
        write(item, &mut identity);
        return Ok(identity);
    }
    let Value::Map(map) = item else { return Err(Fault::no_overload()) };
    for key in keys {
        let value = map.get(&KeyRef::String(key)).unwrap_or(&Value::Null);
        budget.spend_value(value)?;
        write(value, &mut identity);
        identity.push('\0');
    }
    Ok(identity)
}

/// A text that is the same for equal values. Their depth is bounded where they are decoded.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::List(items) => items.iter().for_each(|item| {
            write(item, text);
            text.push(',');
        }),
        Value::Map(map) => {
            let mut entries: Vec<_> = map.map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                text.push_str(&format!("{key:?}:"));
                write(value, text);
                text.push(',');
            }
        }
        other => text.push_str(&format!("{other:?}")),
    }
}
