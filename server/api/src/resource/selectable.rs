//! Fields that `?fieldSelector=` accepts, and where their values stand in a stored object.
//!
//! Upstream: the label conversion functions and `GetAttrs` of each kind's registry.

use std::borrow::Cow;

use serde_json::Value;

use crate::gvk::Name;

/// One field that can be selected by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// The name in a selector.
    pub name: Name,
    /// Paths in the stored object; the first that holds something gives the value. `list[].key` joins the values of a list
    /// with commas.
    pub paths: Vec<Name>,
    /// The value where no path holds anything.
    pub absent: Name,
}

impl SelectableField {
    /// A field named like its path.
    pub fn new(name: impl Into<Name>) -> SelectableField {
        let name = name.into();
        SelectableField { paths: vec![name.clone()], name, absent: "".into() }
    }

    /// The same field, read from other paths.
    #[must_use]
    pub fn at(mut self, paths: &[&'static str]) -> SelectableField {
        self.paths = paths.iter().map(|path| Name::from(*path)).collect();
        self
    }

    /// The same field with another value where it is absent: booleans and counters have a zero value upstream.
    #[must_use]
    pub fn or(mut self, absent: &'static str) -> SelectableField {
        self.absent = absent.into();
        self
    }

    /// The paths that lead to one scalar, which an index can hold.
    pub fn indexed_paths(&self) -> impl Iterator<Item = &Name> {
        self.paths.iter().filter(|path| !path.contains("[]"))
    }

    /// The path of a field that is read from one scalar.
    pub fn only_path(&self) -> Option<&str> {
        match self.paths.as_slice() {
            [path] if !path.contains("[]") => Some(path),
            _ => None,
        }
    }

    /// The field's value, as text. `indexed` gives the text at a path that an index holds; `object` makes the whole object,
    /// for paths through lists.
    pub fn value<'a>(&'a self, indexed: impl Fn(&str) -> Cow<'a, str>, object: impl Fn() -> Value) -> Cow<'a, str> {
        for path in &self.paths {
            let value = match path.split_once("[].") {
                Some((list, key)) => joined(&object(), list, key),
                None => indexed(path),
            };
            if !value.is_empty() {
                return value;
            }
        }
        Cow::Borrowed(&self.absent)
    }

    /// The field's value in an object.
    pub fn value_in(&self, object: &Value) -> String {
        let at = |path: &str| Cow::Owned(at_path(object, path).map(text).unwrap_or_default());
        self.value(at, || object.clone()).into_owned()
    }
}

fn at_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, key| value.get(key))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn joined<'a>(object: &Value, list: &str, key: &str) -> Cow<'a, str> {
    let items = at_path(object, list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Cow::Owned(items.iter().filter_map(|item| item.get(key).map(text)).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_come_from_the_first_path_that_holds_something() {
        let source = SelectableField::new("source").at(&["source.component", "reportingComponent"]);
        assert_eq!(source.value_in(&json!({"reportingComponent": "b"})), "b");
        assert_eq!(source.value_in(&json!({"source": {"component": "a"}, "reportingComponent": "b"})), "a");
        let flag = SelectableField::new("spec.hostNetwork").or("false");
        assert_eq!((flag.value_in(&json!({})), flag.value_in(&json!({"spec": {"hostNetwork": true}}))), ("false".into(), "true".into()));
        let list = SelectableField::new("status.podIPs").at(&["status.podIPs[].ip"]);
        assert_eq!(list.value_in(&json!({"status": {"podIPs": [{"ip": "1"}, {"ip": "2"}]}})), "1,2");
        assert_eq!(list.indexed_paths().count(), 0);
    }
}
