//! Values of objects as expressions see them: by their schema, with fields under their identifiers.
//!
//! Upstream: `UnstructuredToVal` in `apiserver/pkg/cel/common/values.go`.

use std::sync::Arc;

use base64::Engine as _;
use kube_cel::cel::objects::Key;
use serde_json::Value as Json;

use super::names::escape;
use crate::cel::listed::Listed;
use crate::cel::values::{self, from_json, text};
use crate::cel::{Budget, Fault, Value, parsed};
use crate::custom::structural::{ListType, Structural};

/// The value of an object or a part of it, as expressions see it. A value that does not fit its schema is an error. Each part costs a
/// step.
pub fn of(json: &Json, schema: &Structural, budget: &mut Budget) -> Result<Value, Fault> {
    let mismatch = |wanted: &str| Fault::Error(format!("invalid data, expected {wanted}"));
    budget.spend(1)?;
    if json.is_null() {
        return match schema.nullable {
            true => Ok(Value::Null),
            false => Err(Fault::error("invalid data, got null for schema with nullable=false")),
        };
    }
    if schema.is_int_or_string {
        return match json {
            Json::String(_) | Json::Number(_) => Ok(from_json(json)),
            _ => Err(mismatch("XIntOrString value to be either a string or integer")),
        };
    }
    match (schema.type_.as_str(), json) {
        ("object", Json::Object(_)) => object(json, schema, budget),
        ("array", Json::Array(items)) => list(items, schema, budget),
        ("string", Json::String(string)) => {
            budget.spend_bytes(string.len())?;
            formatted(string, schema.limits.as_ref().map_or("", |limits| limits.format.as_str()))
        }
        ("number", Json::Number(number)) => Ok(Value::Float(number.as_f64().unwrap_or_default())),
        ("integer", Json::Number(number)) => whole(number).map(Value::Int).ok_or_else(|| mismatch("int")),
        ("boolean", Json::Bool(flag)) => Ok(Value::Bool(*flag)),
        ("", _) if schema.preserves_unknown => preserved(json, budget),
        ("object", _) => Err(mismatch("a map for the provided schema with type=object")),
        ("array", _) => Err(mismatch("an array for the provided schema with type=array")),
        (other, _) => Err(mismatch(other)),
    }
}

#[allow(clippy::cast_possible_truncation)]
fn whole(number: &serde_json::Number) -> Option<i64> {
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
    number.as_i64().or_else(|| float().map(|float| float as i64))
}

/// A value without a schema. Expressions cannot select it, but it counts when objects are compared.
fn preserved(json: &Json, budget: &mut Budget) -> Result<Value, Fault> {
    let value = from_json(json);
    budget.spend_value(&value)?;
    Ok(value)
}

fn object(json: &Json, schema: &Structural, budget: &mut Budget) -> Result<Value, Fault> {
    let mut entries = std::collections::HashMap::new();
    for (name, inner) in json.as_object().into_iter().flatten() {
        if let Some(property) = schema.properties.get(name) {
            let known = if property.type_.is_empty() && !property.is_int_or_string {
                preserved(inner, budget)?
            } else {
                of(inner, property, budget)?
            };
            entries.insert(Key::from(escape(name).unwrap_or_else(|| name.clone())), known);
        } else if let Some(values) = schema.values() {
            entries.insert(Key::from(name.as_str()), of(inner, values, budget)?);
        } else {
            entries.insert(Key::from(name.as_str()), preserved(inner, budget)?);
        }
    }
    Ok(values::map(entries))
}

fn list(items: &[Json], schema: &Structural, budget: &mut Budget) -> Result<Value, Fault> {
    let Some(inner) = schema.items.as_deref() else {
        return Err(Fault::error("invalid array type, expected Items with a non-empty Schema"));
    };
    let items = items.iter().map(|item| of(item, inner, budget)).collect::<Result<Vec<_>, _>>()?;
    let items = Arc::new(items);
    let identifier = |key: &String| escape(key).unwrap_or_else(|| key.clone());
    Ok(match schema.list_type {
        ListType::Atomic => Value::List(items),
        ListType::Set => Listed { items, keys: Vec::new() }.into_value(),
        ListType::Map => Listed { items, keys: schema.list_keys.iter().map(identifier).collect() }.into_value(),
    })
}

/// A string of a format that has a type of its own.
fn formatted(string: &str, format: &str) -> Result<Value, Fault> {
    match format {
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(string)
            .map(|bytes| Value::Bytes(Arc::new(bytes)))
            .map_err(|error| Fault::Error(format!("Invalid byte formatted string {string}: {error}"))),
        "duration" => parsed("duration", string),
        "date" => parsed("timestamp", &format!("{string}T00:00:00Z")),
        "date-time" => parsed("timestamp", string),
        _ => Ok(text(string)),
    }
}
