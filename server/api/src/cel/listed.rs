//! Lists whose items are told apart (`x-kubernetes-list-type` of `set` or `map`). How they are compared and joined: [`super::join`]. All
//! else takes them for lists.

use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::Opaque;

/// A list whose items are told apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// The items, in order.
    pub items: Arc<Vec<Value>>,
    /// By which fields they are told apart; none: each as a whole.
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

/// The list behind a value; None: it is none of these.
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
