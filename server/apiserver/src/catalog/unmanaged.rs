//! An object without its managed fields, and its metadata as it is written.
//!
//! The columns of built-in kinds say nothing about who manages which field, and the managed fields are often the larger part of an
//! object and the costliest to parse.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const MANAGED_FIELDS: &str = "managedFields";

/// What a row of a Table is made of.
#[derive(Debug)]
pub struct Unmanaged<'a> {
    /// The object without its managed fields.
    pub object: Value,
    /// The JSON of its metadata, with them; empty if it has none.
    pub metadata: &'a str,
}

impl<'a> Unmanaged<'a> {
    /// Parses the JSON of an object.
    pub fn parse(json: &'a [u8]) -> Result<Unmanaged<'a>, serde_json::Error> {
        let mut parser = serde_json::Deserializer::from_slice(json);
        let unmanaged = parser.deserialize_map(Object)?;
        parser.end()?;
        Ok(unmanaged)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Unmanaged<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unmanaged<'de>, A::Error> {
        let mut members = Map::new();
        let mut metadata = "";
        while let Some(key) = map.next_key::<String>()? {
            let value = if key == "metadata" {
                metadata = map.next_value::<&RawValue>()?.get();
                let mut parser = serde_json::Deserializer::from_str(metadata);
                Metadata.deserialize(&mut parser).map_err(Error::custom)?
            } else {
                map.next_value()?
            };
            members.insert(key, value);
        }
        Ok(Unmanaged { object: Value::Object(members), metadata })
    }
}

struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == MANAGED_FIELDS {
                map.next_value::<IgnoredAny>()?;
            } else {
                members.insert(key, map.next_value()?);
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_managed_fields_are_missing() {
        let json = br#"{"kind":"Pod","metadata":{"name":"a","managedFields":[{"fieldsV1":{"f:spec":{}}}],"labels":{"managedFields":"x"}},"spec":{"managedFields":1}}"#;
        let unmanaged = Unmanaged::parse(json).unwrap();
        assert_eq!(
            unmanaged.object,
            json!({"kind": "Pod", "metadata": {"name": "a", "labels": {"managedFields": "x"}}, "spec": {"managedFields": 1}})
        );
        assert_eq!(unmanaged.metadata, r#"{"name":"a","managedFields":[{"fieldsV1":{"f:spec":{}}}],"labels":{"managedFields":"x"}}"#);
        assert!(Unmanaged::parse(b"[]").is_err() && Unmanaged::parse(b"{} x").is_err() && Unmanaged::parse(br#"{"metadata":1}"#).is_err());
    }
}
