//! One scope of a quota, and which names it selects.

use serde_json::Value;

use crate::meta;

/// One scope, as `scopeSelector` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) scope: String,
    operator: String,
    values: Vec<String>,
}

// === impl Term ===

impl Term {
    /// A scope by its name alone: whatever is in it.
    pub(super) fn named(scope: &str) -> Term {
        Term { scope: scope.to_owned(), operator: "Exists".to_owned(), values: Vec::new() }
    }

    /// An item of `scopeSelector.matchExpressions`.
    pub(super) fn of(value: &Value) -> Term {
        let values = meta::list_at(value, &["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Term { scope: meta::str_at(value, &["scopeName"]).to_owned(), operator: meta::str_at(value, &["operator"]).to_owned(), values }
    }

    /// Whether the term selects an object by the name that it has (of its priority class, for example). As with labels, an object
    /// without a name is in no list.
    pub(super) fn selects(&self, name: Option<&str>) -> bool {
        let listed = name.is_some_and(|name| self.values.iter().any(|value| value == name));
        match self.operator.as_str() {
            "Exists" => name.is_some(),
            "DoesNotExist" => name.is_none(),
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    }

    /// Whether one of several names is wanted; without names, as [`Term::selects`] of none.
    pub(super) fn selects_any(&self, names: &[&str]) -> bool {
        if names.is_empty() { self.selects(None) } else { names.iter().any(|name| self.selects(Some(name))) }
    }
}
