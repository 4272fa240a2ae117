//! Converts JSON to values and back, and defines the values that CEL itself lacks: structs of apply configurations.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use kube_cel::cel::Value;
use kube_cel::cel::objects::{Key, Map, Opaque, OptionalValue};
use serde_json::Value as Json;

use super::fault::Fault;
use super::listed::as_listed;

/// How deep a value may be.
pub const MAX_VALUE_DEPTH: usize = 200;

/// Names of types: as values, they are what `type` gives.
pub const TYPE_NAMES: [&str; 10] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "optional_type"];

/// A struct that an expression made: `Object.spec{...}`.
#[derive(Debug, PartialEq, Eq)]
pub struct Struct {
    /// Its type's name, dots included.
    pub type_name: String,
    /// Its fields.
    pub fields: BTreeMap<String, Value>,
}

impl Opaque for Struct {
    fn runtime_type_name(&self) -> &str {
        &self.type_name
    }
}

/// A string.
pub fn text(text: impl Into<String>) -> Value {
    Value::String(Arc::new(text.into()))
}

/// A map with these names.
pub fn map_of<const N: usize>(entries: [(&str, Value); N]) -> Value {
    map(entries.into_iter().map(|(key, value)| (Key::from(key), value)).collect())
}

/// A map.
pub fn map(entries: HashMap<Key, Value>) -> Value {
    Value::Map(Map { map: Arc::new(entries) })
}

/// The value, or null if there is none.
pub fn from_option(json: Option<&Json>) -> Value {
    json.map_or(Value::Null, from_json)
}

/// Converts JSON from a request or from the store. The decoder has bounded its depth.
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            _ => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(string) => text(string.as_str()),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(fields) => map(fields.iter().map(|(key, value)| (Key::from(key.as_str()), from_json(value))).collect()),
    }
}

/// JSON of a value that an expression gave. `room` bounds how much is made of shared parts.
pub fn to_json(value: &Value, room: &mut usize) -> Result<Json, Fault> {
    to_json_within(value, room, MAX_VALUE_DEPTH)
}

fn to_json_within(value: &Value, room: &mut usize, depth: usize) -> Result<Json, Fault> {
    *room = room.checked_sub(1).ok_or(Fault::OutOfBudget)?;
    let deeper = depth.checked_sub(1).ok_or_else(|| Fault::error("value nests too deep"))?;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(number) => Json::from(*number),
        Value::UInt(number) => Json::from(*number),
        // As upstream's encoder: a whole number has no fraction.
        Value::Float(number) => whole(*number).map_or_else(|| Json::from(*number), Json::from),
        Value::String(string) => {
            *room = room.checked_sub(string.len() / 16).ok_or(Fault::OutOfBudget)?;
            Json::from(string.as_str())
        }
        Value::Bytes(bytes) => {
            *room = room.checked_sub(bytes.len() / 16).ok_or(Fault::OutOfBudget)?;
            Json::from(base64::engine::general_purpose::STANDARD.encode(bytes.as_slice()))
        }
        Value::List(items) => Json::Array(items.iter().map(|item| to_json_within(item, room, deeper)).collect::<Result<_, _>>()?),
        Value::Map(entries) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in entries.map.iter() {
                let Key::String(key) = key else { return Err(Fault::error("only strings can be keys of an object")) };
                fields.insert(key.to_string(), to_json_within(value, room, deeper)?);
            }
            Json::Object(fields)
        }
        Value::Opaque(opaque) => {
            if let Some(listed) = as_listed(value) {
                return Ok(Json::Array(listed.items.iter().map(|item| to_json_within(item, room, deeper)).collect::<Result<_, _>>()?));
            }
            if let Some(made) = opaque.downcast_ref::<Struct>() {
                let mut fields = serde_json::Map::new();
                for (name, value) in &made.fields {
                    fields.insert(name.clone(), to_json_within(value, room, deeper)?);
                }
                return Ok(Json::Object(fields));
            }
            return Err(Fault::Error(format!("{} cannot be part of an object", opaque.runtime_type_name())));
        }
        other => return Err(Fault::Error(format!("{} cannot be part of an object", other.type_of()))),
    })
}

#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

/// An optional that has a value, or has none.
pub fn optional(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// What is in an optional; None: it is no optional.
pub fn as_optional(value: &Value) -> Option<Option<&Value>> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<OptionalValue>().map(OptionalValue::value),
        _ => None,
    }
}

/// The struct in a value; None if the value is no struct.
pub fn as_struct(value: &Value) -> Option<&Struct> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Struct>(),
        _ => None,
    }
}

/// The name of a value's type, as messages have it.
pub fn type_name(value: &Value) -> String {
    match value {
        Value::Null => "null_type".to_owned(),
        Value::Float(_) => "double".to_owned(),
        Value::Opaque(opaque) => opaque.runtime_type_name().to_owned(),
        other => other.type_of().to_string(),
    }
}
