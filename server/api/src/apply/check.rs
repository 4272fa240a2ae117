//! Checks that a configuration fits its schema.

use serde_json::{Map, Value};

use super::items::element_of;
use super::topology::{Node, Relation, ScalarType, Shape};

/// More problems than this are not reported.
const PROBLEMS_MAX: usize = 100;

/// Checks `value` against `node`.
///
/// # Errors
/// Upstream's words for what does not fit, with the paths.
pub fn check(node: Node<'_>, value: &Value) -> Result<(), String> {
    let mut checker = Checker { path: String::new(), problems: Vec::new() };
    checker.value(node, value);
    match checker.problems.len() {
        0 => Ok(()),
        1 => Err(checker.problems.remove(0)),
        _ => Err(format!("errors:\n  {}", checker.problems.join("\n  "))),
    }
}

struct Checker {
    path: String,
    problems: Vec<String>,
}

impl Checker {
    fn problem(&mut self, text: impl std::fmt::Display) {
        if self.problems.len() < PROBLEMS_MAX {
            let text = if self.path.is_empty() { text.to_string() } else { format!("{}: {text}", self.path) };
            self.problems.push(text);
        }
    }

    /// Checks what is one step further.
    fn below(&mut self, step: &dyn std::fmt::Display, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&step.to_string());
        check(self);
        self.path.truncate(length);
    }

    fn value(&mut self, node: Node<'_>, value: &Value) {
        match (node.shape(value), value) {
            (_, Value::Null) => {}
            (Shape::Map { .. }, Value::Object(map)) => self.map(node, map),
            (Shape::Map { .. }, other) => self.problem(format!("expected map, got {}", boxed(other))),
            (Shape::List(relation), Value::Array(items)) => self.list(node, relation, items),
            (Shape::List(_), other) => self.problem(format!("expected list, got {}", boxed(other))),
            (Shape::Scalar(ScalarType::Number), Value::Number(_))
            | (Shape::Scalar(ScalarType::Text), Value::String(_))
            | (Shape::Scalar(ScalarType::Bool), Value::Bool(_))
            | (Shape::Scalar(ScalarType::Any), Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
            (Shape::Scalar(ScalarType::Number), other) => {
                self.problem(format!("expected numeric (int or float), got {}", go_type(other)));
            }
            (Shape::Scalar(ScalarType::Text), other) => {
                self.problem(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(other)));
            }
            (Shape::Scalar(ScalarType::Bool), other) => self.problem(format!("expected boolean, got {}", boxed(other))),
            (Shape::Scalar(ScalarType::Any), other) => self.problem(format!("expected any scalar, got {}", boxed(other))),
        }
    }

    fn map(&mut self, node: Node<'_>, map: &Map<String, Value>) {
        for (name, value) in map {
            self.below(&format_args!(".{name}"), |this| match node.member(name) {
                Some(member) => this.value(member.node, value),
                None => this.problem("field not declared in schema"),
            });
        }
    }

    fn list(&mut self, node: Node<'_>, relation: Relation, items: &[Value]) {
        let (keys, item_node) = (node.keys(), node.item());
        let mut known = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            if relation == Relation::Atomic {
                self.below(&format_args!("[{index}]"), |this| this.value(item_node, item));
                continue;
            }
            match element_of(relation, &keys, item_node, item) {
                Ok(element) => {
                    self.below(&element, |this| this.value(item_node, item));
                    let text = element.to_string();
                    if !known.insert(element) {
                        self.problem(format!("duplicate entries for key {text}"));
                    }
                }
                Err(why) => {
                    self.problem(format!("element {index}: {why}"));
                    return;
                }
            }
        }
    }
}

/// A value as Go's `%v` prints the pointer that upstream holds it by.
fn boxed(value: &Value) -> String {
    format!("&{{{}}}", go_text(value))
}

/// A value as Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

/// A value as Go's `%#v` prints it, as far as scalars go.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::String(text) => crate::field::quote(text),
        Value::Array(_) | Value::Object(_) => format!("{}{{...}}", go_type(value)),
        other => other.to_string(),
    }
}

/// Go's name for the type of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
