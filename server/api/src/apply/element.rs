//! One step of a path to a field.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use crate::field::quote;

/// One step of a path. The order is the one in which sets are written: names, keys, values, positions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// The field of a struct, or the entry of a map.
    Field(Box<str>),
    /// The item of a list that has these values in its key fields, sorted by name.
    Key(Box<[(Box<str>, Scalar)]>),
    /// The item of a set.
    Value(Scalar),
    /// The item at a position.
    Index(i64),
}

/// A scalar in a path.
#[derive(Clone, Debug)]
pub enum Scalar {
    /// A whole number.
    Int(i64),
    /// A number that is not whole, or too big.
    Float(f64),
    /// Text.
    Text(Box<str>),
    /// A boolean.
    Bool(bool),
    /// Null.
    Null,
}

// === impl PathElement ===

impl PathElement {
    /// The field of a name.
    pub fn field(name: &str) -> PathElement {
        PathElement::Field(name.into())
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(fields) => {
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={value}", if at == 0 { "[" } else { "," })?;
                }
                f.write_str(if fields.is_empty() { "[]" } else { "]" })
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

// === impl Scalar ===

impl Scalar {
    /// A JSON value that is neither a list nor a map.
    pub fn of(value: &Value) -> Option<Scalar> {
        match value {
            Value::Null => Some(Scalar::Null),
            Value::Bool(flag) => Some(Scalar::Bool(*flag)),
            Value::String(text) => Some(Scalar::Text(text.as_str().into())),
            Value::Number(number) => Some(match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Scalar::Int(whole),
                (None, Some(float)) => Scalar::number(float),
                (None, None) => return None,
            }),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A number: what is whole and fits is an [`Scalar::Int`], so that 1 and 1.0 are the same.
    fn number(float: f64) -> Scalar {
        const WHOLE_BELOW: f64 = 9_007_199_254_740_992.0;
        if float.fract() == 0.0 && float.abs() < WHOLE_BELOW { Scalar::Int(float as i64) } else { Scalar::Float(float) }
    }

    /// As JSON.
    pub fn to_value(&self) -> Value {
        match self {
            Scalar::Int(number) => Value::from(*number),
            Scalar::Float(number) => Value::from(*number),
            Scalar::Text(text) => Value::from(&**text),
            Scalar::Bool(flag) => Value::from(*flag),
            Scalar::Null => Value::Null,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Scalar::Int(_) | Scalar::Float(_) => 0,
            Scalar::Text(_) => 1,
            Scalar::Bool(_) => 2,
            Scalar::Null => 3,
        }
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Scalar) -> Ordering {
        match (self, other) {
            (Scalar::Int(a), Scalar::Int(b)) => a.cmp(b),
            (Scalar::Float(a), Scalar::Float(b)) => a.total_cmp(b),
            // A float is never whole unless it is beyond every integer that a float can hold exactly, so a tie is rounding.
            (Scalar::Int(a), Scalar::Float(b)) => (*a as f64).total_cmp(b).then(Ordering::Less),
            (Scalar::Float(_), Scalar::Int(_)) => other.cmp(self).reverse(),
            (Scalar::Text(a), Scalar::Text(b)) => a.cmp(b),
            (Scalar::Bool(a), Scalar::Bool(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Scalar) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Scalar) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scalar {}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Int(number) => write!(f, "{number}"),
            Scalar::Float(number) => write!(f, "{number}"),
            Scalar::Text(text) => f.write_str(&quote(text)),
            Scalar::Bool(flag) => write!(f, "{flag}"),
            Scalar::Null => f.write_str("null"),
        }
    }
}
