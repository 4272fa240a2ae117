//! The operators on values. Answers to the definitions of the CEL specification
//! (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#standard-definitions>).

use std::cmp::Ordering;
use std::sync::Arc;

use kube_cel::cel::objects::{Key, KeyRef, Map};
use kube_cel::cel::{ExecutionError, Value};

use super::ast::Operator;
use super::budget::Budget;
use super::fault::Fault;
use super::join;
use super::listed::{as_listed, plain};
use super::values::{MAX_VALUE_DEPTH, as_optional, as_struct};

/// `left operator right`.
pub fn binary(operator: Operator, left: Value, right: Value, budget: &mut Budget) -> Result<Value, Fault> {
    let compared = |wanted: fn(Ordering) -> bool| match compare(&left, &right) {
        Some(ordering) => Ok(Value::Bool(ordering.is_some_and(wanted))),
        None => Err(Fault::no_overload()),
    };
    match operator {
        Operator::Equal => equal(&left, &right, budget).map(Value::Bool),
        Operator::NotEqual => equal(&left, &right, budget).map(|same| Value::Bool(!same)),
        Operator::Less => compared(Ordering::is_lt),
        Operator::LessOrEqual => compared(Ordering::is_le),
        Operator::Greater => compared(Ordering::is_gt),
        Operator::GreaterOrEqual => compared(Ordering::is_ge),
        Operator::In => contains(&plain(right), &left, budget).map(Value::Bool),
        Operator::Add => add(left, right, budget),
        Operator::Subtract => (left - right).map_err(arithmetic),
        Operator::Multiply => (left * right).map_err(arithmetic),
        Operator::Divide => (left / right).map_err(arithmetic),
        Operator::Modulo => (left % right).map_err(arithmetic),
    }
}

fn arithmetic(error: ExecutionError) -> Fault {
    match error {
        ExecutionError::Overflow(..) => Fault::error("integer overflow"),
        ExecutionError::DivisionByZero(_) => Fault::error("division by zero"),
        ExecutionError::RemainderByZero(_) => Fault::error("modulus by zero"),
        _ => Fault::no_overload(),
    }
}

fn add(left: Value, right: Value, budget: &mut Budget) -> Result<Value, Fault> {
    let right = plain(right);
    if let Some(listed) = as_listed(&left) {
        return match &right {
            Value::List(items) => join::join(listed, items, budget),
            _ => Err(Fault::no_overload()),
        };
    }
    match (&left, &right) {
        (Value::String(a), Value::String(b)) => budget.spend_bytes(a.len() + b.len())?,
        (Value::List(a), Value::List(b)) => budget.spend(a.len() + b.len())?,
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.spend_bytes(a.len() + b.len())?;
            return Ok(Value::Bytes(Arc::new([a.as_slice(), b.as_slice()].concat())));
        }
        _ => {}
    }
    (left + right).map_err(arithmetic)
}

/// `-operand`.
pub fn negate(operand: &Value) -> Result<Value, Fault> {
    match operand {
        Value::Int(number) => number.checked_neg().map(Value::Int).ok_or_else(|| Fault::error("integer overflow")),
        Value::Float(number) => Ok(Value::Float(-number)),
        _ => Err(Fault::no_overload()),
    }
}

/// The outer None: they cannot be compared. The inner one: there is no order (NaN).
fn compare(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    match (left, right) {
        (Value::Bytes(a), Value::Bytes(b)) => Some(Some(a.cmp(b))),
        (Value::Int(_) | Value::UInt(_) | Value::Float(_), Value::Int(_) | Value::UInt(_) | Value::Float(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Duration(_), Value::Duration(_))
        | (Value::Timestamp(_), Value::Timestamp(_)) => Some(left.partial_cmp(right)),
        _ => None,
    }
}

/// Whether two values are equal. Values of different types are not.
pub fn equal(left: &Value, right: &Value, budget: &mut Budget) -> Result<bool, Fault> {
    equal_within(left, right, budget, MAX_VALUE_DEPTH)
}

fn equal_within(left: &Value, right: &Value, budget: &mut Budget, depth: usize) -> Result<bool, Fault> {
    budget.spend(1)?;
    let deeper = depth.checked_sub(1).ok_or_else(|| Fault::error("value nests too deep"))?;
    if let (Some(a), Some(b)) = (as_optional(left), as_optional(right)) {
        return match (a, b) {
            (Some(a), Some(b)) => equal_within(a, b, budget, deeper),
            (a, b) => Ok(a.is_none() && b.is_none()),
        };
    }
    if let (Some(listed), Value::List(items)) = (as_listed(left), plain(right.clone())) {
        return match join::pairs(listed, &items, budget)? {
            Some(pairs) => all(true, pairs.into_iter(), budget, deeper),
            None => Ok(false),
        };
    }
    if let (Value::List(_), Some(listed)) = (left, as_listed(right)) {
        return equal_within(left, &Value::List(listed.items.clone()), budget, deeper);
    }
    if let (Some(a), Some(b)) = (as_struct(left), as_struct(right)) {
        let same_fields = a.type_name == b.type_name && a.fields.keys().eq(b.fields.keys());
        return all(same_fields, a.fields.values().zip(b.fields.values()), budget, deeper);
    }
    match (left, right) {
        (Value::List(a), Value::List(b)) => all(a.len() == b.len(), a.iter().zip(b.iter()), budget, deeper),
        (Value::Map(a), Value::Map(b)) => {
            if a.map.len() != b.map.len() {
                return Ok(false);
            }
            for (key, value) in a.map.iter() {
                match b.get(key) {
                    Some(other) if equal_within(value, other, budget, deeper)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (Value::String(a), Value::String(b)) => {
            budget.spend_bytes(a.len().min(b.len()))?;
            Ok(a == b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.spend_bytes(a.len().min(b.len()))?;
            Ok(a == b)
        }
        _ => Ok(left == right),
    }
}

fn all<'a>(
    same_shape: bool,
    mut pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, Fault> {
    if !same_shape {
        return Ok(false);
    }
    pairs.try_fold(true, |same, (a, b)| Ok(same && equal_within(a, b, budget, depth)?))
}

/// Whether a list has an element, or a map a key.
fn contains(container: &Value, wanted: &Value, budget: &mut Budget) -> Result<bool, Fault> {
    match container {
        Value::List(items) => {
            for item in items.iter() {
                if equal(item, wanted, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(key_of(wanted).is_some_and(|key| find(map, key).is_some())),
        _ => Err(Fault::no_overload()),
    }
}

/// The value of a key. A number finds its equal of another type.
pub fn find<'a>(map: &'a Map, key: KeyRef<'_>) -> Option<&'a Value> {
    map.get(&key)
}

/// A value as a key of a map; None: it can be none.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub fn key_of(value: &Value) -> Option<KeyRef<'_>> {
    match value {
        Value::Int(number) => Some(KeyRef::Int(*number)),
        Value::UInt(number) => Some(KeyRef::Uint(*number)),
        Value::Float(number) if (*number as i64) as f64 == *number => Some(KeyRef::Int(*number as i64)),
        Value::Bool(value) => Some(KeyRef::Bool(*value)),
        Value::String(text) => Some(KeyRef::String(text)),
        _ => None,
    }
}

/// A key that a map can hold.
pub fn owned_key(value: &Value) -> Result<Key, Fault> {
    match value {
        Value::Int(number) => Ok(Key::Int(*number)),
        Value::UInt(number) => Ok(Key::Uint(*number)),
        Value::Bool(value) => Ok(Key::Bool(*value)),
        Value::String(text) => Ok(Key::String(text.clone())),
        _ => Err(Fault::error("unsupported key type")),
    }
}
