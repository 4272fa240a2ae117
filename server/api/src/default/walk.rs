//! Walking JSON by a written path, and the "set it unless somebody did" rule that all defaulting is made of.

use serde_json::{Map, Value, json};

pub(super) type Object = Map<String, Value>;

/// A default's value, written so that a table of them is a `const`.
#[derive(Clone, Copy)]
pub(super) enum Lit {
    /// A string; replaces an absent or empty one.
    S(&'static str),
    /// An integer behind a pointer: an explicit 0 stays.
    I(i64),
    /// An integer without a pointer: an explicit 0 counts as unset.
    Z(i64),
    /// A boolean behind a pointer.
    B(bool),
    /// An empty object.
    Obj,
    /// An explicit null: a list or time that upstream's encoder never omits.
    Null,
    /// A list of one string.
    L(&'static str),
    /// An empty string that is always written.
    Empty,
}

impl Lit {
    fn json(self) -> Value {
        match self {
            Lit::S(text) => json!(text),
            Lit::I(number) | Lit::Z(number) => json!(number),
            Lit::B(flag) => json!(flag),
            Lit::Obj => json!({}),
            Lit::Null => Value::Null,
            Lit::L(text) => json!([text]),
            Lit::Empty => json!(""),
        }
    }
}

/// One row: under every object that `path` reaches, `key` gets the value unless it has one.
pub(super) struct Row(pub(super) &'static str, pub(super) &'static str, pub(super) Lit);

/// Applies rows in order.
pub(super) fn fill(object: &mut Value, rows: &[Row]) {
    for Row(path, key, lit) in rows {
        each(object, path, &mut |map| set(map, key, *lit));
    }
}

/// Sets `key` unless it holds something (see [`Lit`] for what counts as nothing).
pub(super) fn set(map: &mut Object, key: &str, lit: Lit) {
    let unset = match map.get(key) {
        None => true,
        Some(Value::Null) => !matches!(lit, Lit::Null),
        Some(Value::String(text)) => text.is_empty() && matches!(lit, Lit::S(_)),
        Some(Value::Number(number)) => matches!(lit, Lit::Z(_)) && number.as_i64() == Some(0),
        Some(Value::Array(list)) => list.is_empty() && matches!(lit, Lit::L(_)),
        Some(_) => false,
    };
    if unset {
        map.insert(key.to_owned(), lit.json());
    }
}

/// Calls `visit` on every object that `path` reaches: segments parted by dots, `name[]` goes through a list.
/// The empty path is the value itself. What is absent is skipped.
pub(super) fn each(value: &mut Value, path: &str, visit: &mut dyn FnMut(&mut Object)) {
    if path.is_empty() {
        if let Value::Object(map) = value {
            visit(map);
        }
        return;
    }
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    if let Some(name) = head.strip_suffix("[]") {
        if let Some(Value::Array(items)) = value.get_mut(name) {
            for item in items {
                each(item, rest, visit);
            }
        }
    } else if let Some(inner) = value.get_mut(head) {
        each(inner, rest, visit);
    }
}

/// The object at `key`, made empty when absent or null; None when something else is there.
pub(super) fn object<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    let entry = map.entry(key.to_owned()).or_insert(Value::Null);
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// True when `key` is absent, null or empty.
pub(super) fn unset(map: &Object, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(inner)) => inner.is_empty(),
        Some(_) => false,
    }
}

/// The string at `key`, or "".
pub(super) fn text<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}
