//! Defaults as data: "set this key at that path unless it is set". All defaulting is expressed this way.
//!
//! Owns the rule for what counts as unset. The defaults of a kind are in the kind's file. Upstream: the generated
//! `SetObjectDefaults_*` functions.

use serde_json::{Map, Value, json};

pub(crate) type Object = Map<String, Value>;

/// A default's value, written so that a table of them is a `const`.
#[derive(Clone, Copy)]
pub(crate) enum Lit {
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

/// One default: under every object that `path` reaches, `key` gets the value unless it has one.
pub(crate) struct Set(pub(crate) &'static str, pub(crate) &'static str, pub(crate) Lit);

/// Applies defaults in order.
pub(crate) fn fill(object: &mut Value, rows: &[Set]) {
    for Set(path, key, lit) in rows {
        each(object, path, &mut |map| set(map, key, *lit));
    }
}

/// Sets `key` unless it holds something (see [`Lit`] for what counts as nothing).
pub(crate) fn set(map: &mut Object, key: &str, lit: Lit) {
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

/// Calls `visit` on every object that `path` reaches: segments separated by dots, `name[]` goes through a list.
/// The empty path is the value itself. Absent fields are skipped.
pub(crate) fn each(value: &mut Value, path: &str, visit: &mut dyn FnMut(&mut Object)) {
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
pub(crate) fn object<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    let entry = map.entry(key.to_owned()).or_insert(Value::Null);
    if entry.is_null() {
        *entry = json!({});
    }
    entry.as_object_mut()
}

/// True when `key` is absent, null or empty.
pub(crate) fn unset(map: &Object, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(inner)) => inner.is_empty(),
        Some(_) => false,
    }
}

/// The string at `key`, or "".
pub(crate) fn text<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}
