//! The static types of expressions, as far as they are known before the evaluation.

use std::fmt;
use std::sync::Arc;

/// A type. A type that is not known before the evaluation is [`Type::Dyn`].
#[derive(Clone, Debug)]
pub enum Type {
    /// Known when it is evaluated.
    Dyn,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// A number with a fraction.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A length of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// A list of one type.
    List(Arc<Type>),
    /// A map with values of one type.
    Map(Arc<Type>, Arc<Type>),
    /// Something that may be absent.
    Optional(Arc<Type>),
    /// A type with known fields.
    Object(Arc<dyn Fields>),
    /// A type of a library, or of a struct of an apply configuration.
    Named(Arc<str>),
}

/// The fields of a type.
pub trait Fields: fmt::Debug + Send + Sync {
    /// The type's name.
    fn name(&self) -> String;
    /// The type of a field; None: there is none of this name.
    fn field(&self, name: &str) -> Option<Type>;
}

// === impl Type ===

impl Type {
    /// A list of `element`.
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    /// A map from `key` to `value`.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// An optional of `value`.
    pub fn optional(value: Type) -> Type {
        Type::Optional(Arc::new(value))
    }

    /// A type of a library.
    pub fn named(name: &str) -> Type {
        Type::Named(Arc::from(name))
    }

    /// Whether nothing is known about it.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double)
    }

    /// Whether a value of one may be where the other is wanted.
    pub fn agrees(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.agrees(b),
            (Type::Map(a, b), Type::Map(c, d)) => a.agrees(c) && b.agrees(d),
            // A map literal may stand for an object, and null for a value that may be absent.
            (Type::Object(_), Type::Map(..)) | (Type::Map(..), Type::Object(_)) => true,
            (Type::Null, Type::Object(_) | Type::Named(_) | Type::Timestamp | Type::Duration | Type::Optional(_))
            | (Type::Object(_) | Type::Named(_) | Type::Timestamp | Type::Duration | Type::Optional(_), Type::Null) => true,
            (Type::Object(a), Type::Object(b)) => a.name() == b.name(),
            (Type::Named(a), Type::Named(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// The common type of two branches.
    pub fn joined(&self, other: &Type) -> Type {
        match (self, other) {
            (Type::Dyn, known) | (known, Type::Dyn) => known.clone(),
            (Type::List(a), Type::List(b)) => Type::list(a.joined(b)),
            (Type::Map(a, b), Type::Map(c, d)) => Type::map(a.joined(c), b.joined(d)),
            (Type::Optional(a), Type::Optional(b)) => Type::optional(a.joined(b)),
            (Type::Null, known) | (known, Type::Null) if self.agrees(other) => known.clone(),
            _ if self.agrees(other) => self.clone(),
            _ => Type::Dyn,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(element) => write!(f, "list({element})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(value) => write!(f, "optional_type({value})"),
            Type::Object(fields) => f.write_str(&fields.name()),
            Type::Named(name) => f.write_str(name),
        }
    }
}
