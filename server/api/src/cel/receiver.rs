//! Opaque values that the caller provides, and whose methods expressions call.

use std::fmt;
use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::Opaque;

use super::budget::Budget;
use super::fault::Fault;

/// A value of its user's: it has methods, and nothing else of it is seen.
pub trait Methods: fmt::Debug + Send + Sync {
    /// The name of its type.
    fn type_name(&self) -> &str;
    /// Calls a method of it. None: it has none of this name.
    fn call(&self, name: &str, args: &[Value], budget: &mut Budget) -> Option<Result<Value, Fault>>;
}

/// A value with methods. It is equal to none, itself included.
#[derive(Debug)]
struct Receiver(Arc<dyn Methods>);

impl PartialEq for Receiver {
    fn eq(&self, _other: &Receiver) -> bool {
        false
    }
}

impl Eq for Receiver {}

impl Opaque for Receiver {
    fn runtime_type_name(&self) -> &str {
        self.0.type_name()
    }
}

/// A value with these methods.
pub fn receiver(methods: Arc<dyn Methods>) -> Value {
    Value::Opaque(Arc::new(Receiver(methods)))
}

/// The methods of a value; None: it has none of its own.
pub fn as_receiver(value: &Value) -> Option<&dyn Methods> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Receiver>().map(|receiver| &*receiver.0),
        _ => None,
    }
}
