//! JSON to messages, by the tables.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::special::misfit;
use super::tables::{Field, Message};
use super::{MAX_DEPTH, ProtobufError, Shape, Target, special, wire};

/// Encodes an object's fields, in the order of their numbers. What the message has no field for is left out.
pub(super) fn message(object: &Map<String, Value>, message: Message, depth: usize, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    for field in message.fields() {
        if let (true, Target::Message(inner)) = (field.is_inline(), field.target()) {
            let mut content = Vec::new();
            self::message(object, inner, depth + 1, &mut content)?;
            wire::put_bytes(out, field.number(), &content);
            continue;
        }
        match (field.shape(), object.get(field.name())) {
            (_, None | Some(Value::Null)) => {}
            (Shape::Single, Some(content)) => value(content, field.number(), field.target(), field.name(), depth, out)?,
            (Shape::List, Some(Value::Array(items))) => {
                for item in items {
                    value_or_zero(item, field.number(), field, depth, out)?;
                }
            }
            (Shape::Map, Some(Value::Object(entries))) => {
                for (key, content) in entries {
                    let mut entry = Vec::with_capacity(key.len() + 32);
                    wire::put_bytes(&mut entry, 1, key.as_bytes());
                    value_or_zero(content, 2, field, depth, &mut entry)?;
                    wire::put_bytes(out, field.number(), &entry);
                }
            }
            (_, Some(other)) => return Err(misfit(other, field.name())),
        }
    }
    Ok(())
}

/// A slot of a list or map: one that is null has to be there all the same.
fn value_or_zero(content: &Value, number: u32, field: Field, depth: usize, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    if !content.is_null() {
        return value(content, number, field.target(), field.name(), depth, out);
    }
    match field.target() {
        Target::Int32 | Target::Int64 | Target::Bool => wire::put_number(out, number, 0),
        Target::Double => wire::put_double(out, number, 0.0),
        _ => wire::put_bytes(out, number, b""),
    }
    Ok(())
}

/// One value under a field number.
pub(super) fn value(
    content: &Value,
    number: u32,
    target: Target,
    name: &'static str,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    match (target, content) {
        (Target::String, Value::String(text)) => wire::put_bytes(out, number, text.as_bytes()),
        (Target::Bytes, Value::String(text)) => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|e| ProtobufError::Value { field: name, problem: e.to_string() })?;
            wire::put_bytes(out, number, &bytes);
        }
        (Target::Int32 | Target::Int64, Value::Number(integer)) => {
            wire::put_number(out, number, integer.as_i64().ok_or_else(|| misfit(content, name))?);
        }
        (Target::Bool, Value::Bool(flag)) => wire::put_number(out, number, i64::from(*flag)),
        (Target::Double, Value::Number(float)) => wire::put_double(out, number, float.as_f64().ok_or_else(|| misfit(content, name))?),
        (Target::Message(inner), Value::Object(object)) => {
            let mut bytes = Vec::new();
            message(object, inner, depth + 1, &mut bytes)?;
            wire::put_bytes(out, number, &bytes);
        }
        (Target::String | Target::Bytes | Target::Int32 | Target::Int64 | Target::Bool | Target::Double | Target::Message(_), other) => {
            return Err(misfit(other, name));
        }
        (_, content) => {
            let bytes = special::encode(content, target, name, depth, value)?;
            wire::put_bytes(out, number, &bytes);
        }
    }
    Ok(())
}
