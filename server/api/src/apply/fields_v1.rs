//! FieldsV1: how a set of fields is written into an object.
//!
//! ```text
//! f:NAME        the field of this name
//! k:{"A":1}     the item of a list with these key fields
//! v:1           the item of a set with this value
//! i:0           the item at this position
//! .             the path itself is in the set, beside what is below it
//! ```

use serde_json::{Map, Value};

use super::element::{PathElement, Scalar};
use super::set::{Branch, Set};
use crate::schema::MAX_DEPTH;

const SELF: &str = ".";

/// Writes a set.
pub fn encode(set: &Set) -> Value {
    let mut map = Map::new();
    for branch in set.branches() {
        let mut below = encode(&branch.below);
        if branch.is_member
            && !branch.below.is_empty()
            && let Some(map) = below.as_object_mut()
        {
            map.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        map.insert(text_of(&branch.element), below);
    }
    Value::Object(map)
}

fn text_of(element: &PathElement) -> String {
    match element {
        PathElement::Field(name) => format!("f:{name}"),
        PathElement::Key(fields) => {
            let fields: Map<String, Value> = fields.iter().map(|(name, value)| (name.to_string(), value.to_value())).collect();
            format!("k:{}", Value::Object(fields))
        }
        PathElement::Value(value) => format!("v:{}", value.to_value()),
        PathElement::Index(index) => format!("i:{index}"),
    }
}

/// Reads a set.
///
/// # Errors
/// A key is no path element, or the set is nested too deeply. Elements of unknown types are ignored.
pub fn decode(fields: &Value) -> Result<Set, String> {
    let Value::Object(map) = fields else {
        return Err(format!("expected a map of fields, got {}", crate::schema::type_word(fields)));
    };
    below(map, 0)
}

fn below(map: &Map<String, Value>, depth: usize) -> Result<Set, String> {
    if depth >= MAX_DEPTH {
        return Err("fields are nested too deeply".to_owned());
    }
    let mut branches = Vec::with_capacity(map.len());
    for (key, value) in map {
        if key == SELF {
            continue;
        }
        let Some(element) = element_of(key)? else { continue };
        let (is_member, below) = match value {
            Value::Null => (true, Set::default()),
            Value::Object(inner) => {
                let set = below(inner, depth + 1)?;
                (inner.contains_key(SELF) || set.is_empty(), set)
            }
            other => return Err(format!("{key}: expected a map of fields, got {}", crate::schema::type_word(other))),
        };
        branches.push(Branch { element, is_member, below });
    }
    Ok(Set::from_branches(branches))
}

/// The element of a key; None: its type is not known.
fn element_of(key: &str) -> Result<Option<PathElement>, String> {
    let Some((kind, text)) = key.split_at_checked(2).filter(|(kind, _)| kind.ends_with(':')) else {
        return Err(format!("{}: a path element begins with its type and a colon", crate::field::quote(key)));
    };
    let json = || serde_json::from_str::<Value>(text).map_err(|error| format!("{key}: {error}"));
    let scalar = |value: &Value| Scalar::of(value).ok_or_else(|| format!("{key}: a path element holds scalars only"));
    Ok(Some(match kind {
        "f:" => PathElement::field(text),
        "v:" => PathElement::Value(scalar(&json()?)?),
        "k:" => {
            let Value::Object(fields) = json()? else { return Err(format!("{key}: key fields are a map")) };
            let mut keys: Vec<(Box<str>, Scalar)> = Vec::with_capacity(fields.len());
            for (name, value) in &fields {
                keys.push((name.as_str().into(), scalar(value)?));
            }
            PathElement::Key(keys.into())
        }
        "i:" => PathElement::Index(text.parse::<i64>().map_err(|error| format!("{key}: {error}"))?),
        _ => return Ok(None),
    }))
}
