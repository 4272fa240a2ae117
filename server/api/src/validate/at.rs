//! A place in an object: the value there (null when absent) and its path, with the errors one can report about it.

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::field::{FieldError, FieldErrors, FieldPath};

static NULL: Value = Value::Null;

/// Collects the errors of one validation, in order, and what its author is only warned of.
#[derive(Default)]
pub struct Errors {
    errors: RefCell<FieldErrors>,
    warnings: RefCell<Vec<String>>,
}

impl Errors {
    /// Adds an error.
    pub fn push(&self, error: FieldError) {
        self.errors.borrow_mut().push(error);
    }

    /// Adds a warning.
    pub fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// The warnings.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// The errors, in the order in which they were found.
    pub fn take(self) -> FieldErrors {
        self.errors.into_inner()
    }
}

/// A value with its path and the list that its errors go to.
#[derive(Clone)]
pub struct At<'a> {
    /// The value; null when absent.
    pub value: &'a Value,
    /// Where it stands.
    pub path: FieldPath,
    /// Where errors about it go.
    pub errors: &'a Errors,
}

impl<'a> At<'a> {
    /// The whole object.
    pub fn root(value: &'a Value, errors: &'a Errors) -> At<'a> {
        At { value, path: FieldPath::root(), errors }
    }

    /// A value that stands at `path`.
    pub fn new(value: &'a Value, path: FieldPath, errors: &'a Errors) -> At<'a> {
        At { value, path, errors }
    }

    /// A field of this object.
    pub fn at(&self, key: &str) -> At<'a> {
        At { value: self.value.get(key).unwrap_or(&NULL), path: self.path.child(key), errors: self.errors }
    }

    /// The same value under another path.
    pub fn named(&self, path: FieldPath) -> At<'a> {
        At { value: self.value, path, errors: self.errors }
    }

    /// The items of this list; none when it is absent.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let (path, errors) = (self.path.clone(), self.errors);
        let list: &'a [Value] = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().enumerate().map(move |(index, value)| At { value, path: path.index(index), errors })
    }

    /// The entries of this map, each with the path `this[key]`; none when it is absent.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let (path, errors) = (self.path.clone(), self.errors);
        self.value.as_object().into_iter().flatten().map(move |(key, value)| (key.as_str(), At { value, path: path.key(key), errors }))
    }

    /// How many items, entries or bytes there are.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    /// Whether there are no items, entries or bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a value.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Set and not the empty string, list or map.
    pub fn is_full(&self) -> bool {
        match self.value {
            Value::Null => false,
            Value::Array(_) | Value::Object(_) | Value::String(_) => !self.is_empty(),
            _ => true,
        }
    }

    /// The string here, or "".
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The integer here.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The boolean here; false when absent.
    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// The map here.
    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    /// The strings of this list; none when it is absent.
    pub fn strings(&self) -> Vec<&'a str> {
        self.value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    // === reporting ===

    /// Reports that a value must be given.
    pub fn required(&self, detail: &str) {
        self.errors.push(FieldError::required(&self.path, detail));
    }

    /// Shows the value here; an absent one as an empty string.
    pub fn invalid(&self, detail: impl Into<String>) {
        let shown = if self.value.is_null() { Value::from("") } else { self.value.clone() };
        self.errors.push(FieldError::invalid(&self.path, shown, detail));
    }

    /// Reports an invalid value and shows `shown` in its place.
    pub fn invalid_as(&self, shown: impl Into<Value>, detail: impl Into<String>) {
        self.errors.push(FieldError::invalid(&self.path, shown, detail));
    }

    /// Reports a value that may not be given here.
    pub fn forbidden(&self, detail: impl Into<String>) {
        self.errors.push(FieldError::forbidden(&self.path, detail));
    }

    /// Reports a value that stands twice.
    pub fn duplicate(&self) {
        self.errors.push(FieldError::duplicate(&self.path, self.value.clone()));
    }

    /// Reports a reference to something that is not there.
    pub fn not_found(&self) {
        self.errors.push(FieldError::not_found(&self.path, self.value.clone()));
    }

    /// Reports a value outside of an enumeration.
    pub fn not_supported(&self, supported: &[&str]) {
        let shown = if self.value.is_null() { Value::from("") } else { self.value.clone() };
        self.errors.push(FieldError::not_supported(&self.path, shown, supported));
    }

    /// Reports a value with too many bytes.
    pub fn too_long(&self, max_bytes: usize) {
        self.errors.push(FieldError::too_long(&self.path, max_bytes));
    }

    // === the usual checks ===

    /// Reports what `rule` says about the string here.
    pub fn obeys(&self, rule: fn(&str) -> Vec<String>) {
        for message in rule(self.text()) {
            self.invalid_as(self.text(), message);
        }
    }

    /// As [`At::obeys`], and required.
    pub fn must_obey(&self, rule: fn(&str) -> Vec<String>) {
        if self.text().is_empty() { self.required("") } else { self.obeys(rule) }
    }

    /// As [`At::obeys`], when there is something.
    pub fn may_obey(&self, rule: fn(&str) -> Vec<String>) {
        if !self.text().is_empty() {
            self.obeys(rule);
        }
    }

    /// One of a list; required.
    pub fn one_of(&self, allowed: &[&str]) {
        if self.text().is_empty() {
            self.required("");
        } else if !allowed.contains(&self.text()) {
            self.not_supported(allowed);
        }
    }

    /// One of a list, when there is something.
    pub fn may_be_one_of(&self, allowed: &[&str]) {
        if self.is_full() && !allowed.contains(&self.text()) {
            self.not_supported(allowed);
        }
    }

    /// 0 or more, when there is a number.
    pub fn non_negative(&self) {
        if self.int().is_some_and(|number| number < 0) {
            self.invalid("must be greater than or equal to 0");
        }
    }

    /// 1 or more; an absent number counts as 0.
    pub fn positive(&self) {
        if self.int().unwrap_or(0) <= 0 {
            self.invalid_as(self.int().unwrap_or(0), "must be greater than zero");
        }
    }

    /// Between `low` and `high`, both included, when there is a number.
    pub fn in_range(&self, low: i64, high: i64) {
        if let Some(number) = self.int()
            && !(low..=high).contains(&number)
        {
            self.invalid(crate::names::inclusive_range_error(low, high));
        }
    }

    /// Equal to `old`, else "field is immutable". Absent and empty are the same.
    pub fn immutable(&self, old: &At<'_>) {
        if !same(self.value, old.value) {
            self.invalid("field is immutable");
        }
    }
}

/// Equal as upstream compares: nothing, an empty list and an empty map are the same.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            left.iter().all(|(key, value)| same(value, right.get(key).unwrap_or(&NULL)))
                && right.iter().all(|(key, value)| left.contains_key(key) || nothing(value))
        }
        (Value::Array(left), Value::Array(right)) => left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b)),
        _ => a == b || (nothing(a) && nothing(b)),
    }
}

fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(nothing),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
