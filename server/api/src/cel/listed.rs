//! Lists with `x-kubernetes-list-type` `set` or `map`. They are compared and joined in [`super::join`]; all other operations treat them as
//! plain lists.

use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::Opaque;

/// A list of type `set` or `map`.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// The items, in order.
    pub items: Arc<Vec<Value>>,
    /// The key fields of the items; empty for a set, whose items are compared as a whole.
    pub keys: Vec<String>,
}

impl Listed {
    /// As a value of the language.
    pub fn into_value(self) -> Value {
        Value::Opaque(Arc::new(self))
    }
}

impl Opaque for Listed {
    fn runtime_type_name(&self) -> &str {
        "list"
    }
}

/// The list in a value; None if the value is no list of type `set` or `map`.
pub fn as_listed(value: &Value) -> Option<&Listed> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Listed>(),
        _ => None,
    }
}

/// The value as a list like any other, if it is one of these.
pub fn plain(value: Value) -> Value {
    match as_listed(&value) {
        Some(listed) => Value::List(listed.items.clone()),
        None => value,
    }
}
