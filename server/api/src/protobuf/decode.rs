//! Messages to JSON, by the tables.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use super::tables::{Field, Message};
use super::wire::{Item, Reader};
use super::{MAX_DEPTH, ProtobufError, Shape, Target, special};

/// Decodes a message into `object`. What is there already is merged with, as the wire format demands it.
pub(super) fn message(bytes: &[u8], message: Message, depth: usize, object: &mut Map<String, Value>) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        // Fields that this version doesn't know are skipped.
        let Some(field) = message.field(number) else { continue };
        match field.shape() {
            Shape::Single => single(item, field, depth, object)?,
            Shape::List => {
                let entry = object.entry(field.name()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = entry {
                    list_item(item, field, depth, list)?;
                }
            }
            Shape::Map => {
                let (key, value) = map_entry(item, field, depth)?;
                let entry = object.entry(field.name()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = entry {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn single(item: Item<'_>, field: Field, depth: usize, object: &mut Map<String, Value>) -> Result<(), ProtobufError> {
    let name = field.name();
    if let Target::Message(inner) = field.target() {
        let bytes = item.bytes(name)?;
        if field.is_inline() {
            return message(bytes, inner, depth + 1, object);
        }
        let entry = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
        return match entry {
            Value::Object(existing) => message(bytes, inner, depth + 1, existing),
            _ => Ok(()),
        };
    }
    match value(item, field.target(), name, depth)? {
        Some(value) if field.shows_zero() || !is_zero(&value) => {
            object.insert(name.to_owned(), value);
        }
        _ => {
            object.remove(name);
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

fn list_item(item: Item<'_>, field: Field, depth: usize, list: &mut Vec<Value>) -> Result<(), ProtobufError> {
    let target = field.target();
    if let (Item::Bytes(bytes), Target::Int32 | Target::Int64 | Target::Bool) = (item, target) {
        let mut reader = Reader::new(bytes);
        while let Some(number) = reader.packed()? {
            list.extend(value(Item::Varint(number), target, field.name(), depth)?);
        }
        return Ok(());
    }
    list.push(value(item, target, field.name(), depth)?.unwrap_or(Value::Null));
    Ok(())
}

fn map_entry(item: Item<'_>, field: Field, depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut content) = (String::new(), None);
    let mut reader = Reader::new(item.bytes(field.name())?);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => key = item.text(field.name())?,
            2 => content = value(item, field.target(), field.name(), depth)?,
            _ => {}
        }
    }
    // An entry without a value has the zero value.
    let content = match content {
        Some(content) => content,
        None => match field.target() {
            Target::Int32 | Target::Int64 | Target::Double => 0.into(),
            Target::Bool => false.into(),
            _ => value(Item::Bytes(&[]), field.target(), field.name(), depth)?.unwrap_or(Value::Null),
        },
    };
    Ok((key, content))
}

/// One value; None where Go's JSON has null.
pub(super) fn value(item: Item<'_>, target: Target, name: &'static str, depth: usize) -> Result<Option<Value>, ProtobufError> {
    Ok(Some(match target {
        Target::String => Value::String(item.text(name)?),
        Target::Bytes => Value::String(BASE64_STANDARD.encode(item.bytes(name)?)),
        // As Go narrows it.
        Target::Int32 => Value::from(item.varint(name)? as i32),
        Target::Int64 => Value::from(item.varint(name)?.cast_signed()),
        Target::Bool => Value::Bool(item.varint(name)? != 0),
        Target::Double => special::double(f64::from_bits(item.fixed64(name)?), name)?,
        Target::Message(inner) => {
            let mut object = Map::new();
            message(item.bytes(name)?, inner, depth + 1, &mut object)?;
            Value::Object(object)
        }
        _ => return special::decode(item.bytes(name)?, target, name, depth, message),
    }))
}
