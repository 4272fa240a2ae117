//! Messages that JSON writes in ways of their own: quantities, times, embedded JSON, the unions of CRD schemas.

use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::tables::Message;
use super::wire::{self, Reader};
use super::{ProtobufError, Target};
use crate::{schema, time};

/// Decodes a message of the tables into an object; special messages hold such messages.
pub(super) type DecodeMessage = fn(&[u8], Message, usize, &mut Map<String, Value>) -> Result<(), ProtobufError>;

/// Encodes a value of the tables under a field number.
pub(super) type EncodeValue = fn(&Value, u32, Target, &'static str, usize, &mut Vec<u8>) -> Result<(), ProtobufError>;

/// A value that a field of the tables cannot hold.
pub(super) fn misfit(value: &Value, field: &'static str) -> ProtobufError {
    ProtobufError::Value { field, problem: format!("a {} does not fit", schema::type_word(value)) }
}

/// Decodes a special message; None where Go's JSON has null.
pub(super) fn decode(
    bytes: &[u8],
    target: Target,
    name: &'static str,
    depth: usize,
    message: DecodeMessage,
) -> Result<Option<Value>, ProtobufError> {
    match target {
        Target::Quantity => quantity(bytes, name).map(Some),
        Target::IntOrString => int_or_string(bytes, name).map(Some),
        Target::Time | Target::MicroTime => timestamp(bytes, target == Target::MicroTime, name),
        Target::RawJson => raw_json(bytes, name),
        Target::Strings => {
            let mut list = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, item)) = reader.next()? {
                if number == 1 {
                    list.push(Value::String(item.text(name)?));
                }
            }
            Ok(Some(Value::Array(list)))
        }
        _ => schema_or(bytes, target, name, depth, message),
    }
}

/// Encodes the content of a special message.
pub(super) fn encode(
    value: &Value,
    target: Target,
    name: &'static str,
    depth: usize,
    encode: EncodeValue,
) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::new();
    match (target, value) {
        (Target::Quantity, Value::String(text)) => wire::put_bytes(&mut out, 1, text.as_bytes()),
        (Target::IntOrString, Value::Number(number)) => {
            let number = number.as_i64().ok_or_else(|| misfit(value, name))?;
            put_int_or_string(&mut out, 0, number, "");
        }
        (Target::IntOrString, Value::String(text)) => put_int_or_string(&mut out, 1, 0, text),
        (Target::Time | Target::MicroTime, Value::String(text)) => {
            let time = time::parse(text).ok_or_else(|| misfit(value, name))?;
            let micros = if target == Target::MicroTime { time.as_microsecond().rem_euclid(1_000_000) } else { 0 };
            wire::put_number(&mut out, 1, time.as_nanosecond().div_euclid(1_000_000_000) as i64);
            wire::put_number(&mut out, 2, micros * 1000);
        }
        (Target::RawJson, value) => {
            let text = serde_json::to_vec(value).expect("invariant: a JSON value has string keys");
            wire::put_bytes(&mut out, 1, &text);
        }
        (Target::Strings, Value::Array(items)) => {
            for item in items {
                encode(item, 1, Target::String, name, depth, &mut out)?;
            }
        }
        (Target::SchemaOrArray, Value::Array(items)) => {
            for item in items {
                put_schema(&mut out, 2, item, name, depth, encode)?;
            }
        }
        (Target::SchemaOrBool, Value::Bool(allows)) => wire::put_number(&mut out, 1, i64::from(*allows)),
        (Target::SchemaOrBool, Value::Object(_)) => {
            wire::put_number(&mut out, 1, 1);
            put_schema(&mut out, 2, value, name, depth, encode)?;
        }
        (Target::SchemaOrStrings, Value::Array(items)) => {
            for item in items {
                encode(item, 2, Target::String, name, depth, &mut out)?;
            }
        }
        (Target::SchemaOrArray | Target::SchemaOrStrings, Value::Object(_)) => put_schema(&mut out, 1, value, name, depth, encode)?,
        (_, other) => return Err(misfit(other, name)),
    }
    Ok(out)
}

fn put_int_or_string(out: &mut Vec<u8>, kind: i64, number: i64, text: &str) {
    wire::put_number(out, 1, kind);
    wire::put_number(out, 2, number);
    wire::put_bytes(out, 3, text.as_bytes());
}

fn put_schema(
    out: &mut Vec<u8>,
    number: u32,
    value: &Value,
    name: &'static str,
    depth: usize,
    encode: EncodeValue,
) -> Result<(), ProtobufError> {
    let message = Message::json_schema().ok_or_else(|| misfit(value, name))?;
    encode(value, number, Target::Message(message), name, depth + 1, out)
}

/// A floating-point number as Go's JSON writes it: without a fraction if there is none.
pub(super) fn double(value: f64, name: &'static str) -> Result<Value, ProtobufError> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Ok(Value::from(value as i64));
    }
    let number = Number::from_f64(value);
    number.map(Value::Number).ok_or_else(|| ProtobufError::Value { field: name, problem: format!("{value} is no JSON number") })
}

fn quantity(bytes: &[u8], name: &'static str) -> Result<Value, ProtobufError> {
    let mut text = String::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        if number == 1 {
            text = item.text(name)?;
        }
    }
    Ok(Value::String(if text.is_empty() { "0".to_owned() } else { text }))
}

fn int_or_string(bytes: &[u8], name: &'static str) -> Result<Value, ProtobufError> {
    let (mut kind, mut integer, mut text) = (0, 0_i32, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => kind = item.varint(name)?,
            2 => integer = item.varint(name)? as i32,
            3 => text = item.text(name)?,
            _ => {}
        }
    }
    match kind {
        0 => Ok(Value::from(integer)),
        1 => Ok(Value::String(text)),
        _ => Err(ProtobufError::Value { field: name, problem: "impossible IntOrString.Type".to_owned() }),
    }
}

fn timestamp(bytes: &[u8], micro: bool, name: &'static str) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => seconds = item.varint(name)?.cast_signed(),
            2 => nanos = item.varint(name)? as i32,
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    let time = Timestamp::new(seconds, nanos).map_err(|e| ProtobufError::Value { field: name, problem: e.to_string() })?;
    Ok(Some(Value::String(if micro { time::format_micro(time) } else { time::format(time) })))
}

fn raw_json(bytes: &[u8], name: &'static str) -> Result<Option<Value>, ProtobufError> {
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        if number == 1 {
            raw = item.bytes(name)?;
        }
    }
    if raw.is_empty() {
        return Ok(None);
    }
    let value = schema::parse_json(raw).map_err(|problem| ProtobufError::Value { field: name, problem })?;
    Ok(Some(value).filter(|v| !v.is_null()))
}

fn schema_or(
    bytes: &[u8],
    target: Target,
    name: &'static str,
    depth: usize,
    message: DecodeMessage,
) -> Result<Option<Value>, ProtobufError> {
    let (mut schema, mut allows, mut list) = (None, false, Vec::new());
    let schema_number = if target == Target::SchemaOrBool { 2 } else { 1 };
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        match (number, target) {
            (1 | 2, _) if number == schema_number => schema = Some(schema_of(item.bytes(name)?, depth, message)?),
            (1, _) => allows = item.varint(name)? != 0,
            (2, Target::SchemaOrArray) => list.push(schema_of(item.bytes(name)?, depth, message)?),
            (2, _) => list.push(Value::String(item.text(name)?)),
            _ => {}
        }
    }
    Ok(match (target, schema) {
        (Target::SchemaOrBool, Some(schema)) => Some(schema),
        (Target::SchemaOrBool, None) => Some(Value::Bool(allows)),
        (_, schema) if list.is_empty() => schema,
        _ => Some(Value::Array(list)),
    })
}

fn schema_of(bytes: &[u8], depth: usize, decode: DecodeMessage) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    let message = Message::json_schema().ok_or_else(|| ProtobufError::Kind("JSONSchemaProps".to_owned()))?;
    decode(bytes, message, depth + 1, &mut object)?;
    Ok(Value::Object(object))
}
