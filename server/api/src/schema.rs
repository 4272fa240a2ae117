//! Schemas of built-in kinds, and decoding of request bodies by them.
//!
//! The tables hold facts of Kubernetes' published OpenAPI document (names, types, list types, merge keys); they cost no
//! memory beyond the pages that are read. Schemas of custom resources are another matter: [`crate::custom`].

mod conform;
mod decode;
mod generated;
mod go_json;
mod open;
mod tables;
mod yaml;

pub use conform::Conformed;
pub use decode::{
    ContentType, Decoded, FieldValidation, conform_value, decode, decode_any, parse_configuration, parse_json, parse_yaml, prune,
};
pub(crate) use decode::{settle, summary};
pub use go_json::MAX_DEPTH;
pub use open::{conform_metadata, conform_open_value, decode_open, decode_untyped};
pub use tables::{Field, Kind, ListType, TypeId, definition, roots, type_of, types};

/// Go's word for the type of a JSON value ("string", "object"), as error messages name it.
pub fn type_word(value: &serde_json::Value) -> &'static str {
    use serde_json::Value;
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Bytes that change when the tables do, to make hashes of what is derived from them.
pub fn fingerprint() -> &'static [u8] {
    static FINGERPRINT: std::sync::LazyLock<[u8; 32]> = std::sync::LazyLock::new(tables::digest);
    FINGERPRINT.as_slice()
}
