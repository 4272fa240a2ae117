//! The v2 document in protobuf, as gnostic's `openapi.v2.Document`.
//!
//! client-go asks for v2 in this form only. The parts that our documents have are encoded from their JSON; numbers in
//! comments are field numbers of gnostic's `OpenAPIv2.proto`. An extension's value is YAML text, for which JSON will do.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::operations;
use super::served::Served;
use super::target::Used;

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

/// Encodes the document of all rows.
pub(super) fn encode(rows: &[Served]) -> Bytes {
    let mut used = Used::default();
    let mut paths = Message::default();
    for row in rows {
        for version in row.resource.versions.iter() {
            for (path, item) in operations::paths(row, version, Dialect::V2, &mut used) {
                paths.message(2, &named(&path, &path_item(&item)));
            }
        }
    }
    let mut definitions = Message::default();
    for (name, value) in used.definitions(Dialect::V2) {
        definitions.message(1, &named(&name, &schema(&value)));
    }
    let mut info = Message::default();
    info.text(1, "Kubernetes");
    info.text(2, "v1.36.0");
    let mut document = Message::default();
    document.text(1, "2.0");
    document.message(2, &info);
    document.message(8, &paths);
    document.message(9, &definitions);
    document.0.into()
}

// === impl Message ===

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// A string member of an object.
    fn member(&mut self, field: u64, object: &Value, key: &str) {
        self.text(field, object[key].as_str().unwrap_or_default());
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    /// A number as a double.
    fn float(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A number that is not negative.
    fn count(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_u64() {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    /// The strings of a list.
    fn texts(&mut self, field: u64, list: &Value) {
        for item in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, item.as_bytes());
        }
    }

    /// All `x-` members.
    fn extensions(&mut self, field: u64, object: &Value) {
        for (key, value) in members(object).filter(|(key, _)| key.starts_with("x-")) {
            self.message(field, &named(key, &any(value)));
        }
    }
}

/// Any value, as YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(2, &value.to_string());
    out
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

/// The pair message that stands for an entry of a map.
fn named(name: &str, value: &Message) -> Message {
    let mut pair = Message::default();
    pair.text(1, name);
    pair.message(2, value);
    pair
}

/// A message with one message field: what `oneof` members look like.
fn wrapped(field: u64, inner: &Message) -> Message {
    let mut outer = Message::default();
    outer.message(field, inner);
    outer
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            out.message(field, &operation(value));
        }
    }
    parameters(&mut out, 9, item);
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, &value["tags"]);
    out.member(5, value, "operationId");
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    parameters(&mut out, 8, value);
    let mut responses = Message::default();
    for (code, answer) in members(&value["responses"]) {
        let mut response = Message::default();
        response.member(1, answer, "description");
        if let Some(body) = answer.get("schema") {
            response.message(2, &wrapped(1, &schema(body)));
        }
        responses.message(1, &named(code, &wrapped(1, &response)));
    }
    out.message(9, &responses);
    out.extensions(13, value);
    out
}

fn parameters(out: &mut Message, field: u64, owner: &Value) {
    for value in owner["parameters"].as_array().into_iter().flatten() {
        // ParametersItem.parameter = 1 around Parameter.{body_parameter = 1, non_body_parameter = 2}
        out.message(field, &wrapped(1, &parameter(value)));
    }
}

fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    match value["in"].as_str() {
        Some("body") => {
            out.member(2, value, "name");
            out.member(3, value, "in");
            out.flag(4, &value["required"]);
            out.message(5, &schema(&value["schema"]));
            wrapped(1, &out)
        }
        place => {
            // The sub-schemas for query and path differ in numbers after the name: the query's allows empty values.
            let (of_place, type_field, unique_field) = if place == Some("query") { (3, 6, 20) } else { (4, 5, 19) };
            out.flag(1, &value["required"]);
            out.member(2, value, "in");
            out.member(4, value, "name");
            out.member(type_field, value, "type");
            out.flag(unique_field, &value["uniqueItems"]);
            wrapped(2, &wrapped(of_place, &out))
        }
    }
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.member(1, value, "$ref");
    out.member(2, value, "format");
    out.member(3, value, "title");
    out.member(4, value, "description");
    if let Some(default) = value.get("default") {
        out.message(5, &any(default));
    }
    for (field, key) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        out.float(field, &value[key]);
    }
    out.flag(8, &value["exclusiveMaximum"]);
    out.flag(10, &value["exclusiveMinimum"]);
    for (field, key) in
        [(11, "maxLength"), (12, "minLength"), (14, "maxItems"), (15, "minItems"), (17, "maxProperties"), (18, "minProperties")]
    {
        out.count(field, &value[key]);
    }
    out.member(13, value, "pattern");
    out.texts(19, &value["required"]);
    for allowed in value["enum"].as_array().into_iter().flatten() {
        out.message(20, &any(allowed));
    }
    match value.get("additionalProperties") {
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.varint(2 << 3);
            item.varint(u64::from(*allowed));
            out.message(21, &item);
        }
        Some(values) => out.message(21, &wrapped(1, &schema(values))),
        None => {}
    }
    if let Some(word) = value["type"].as_str() {
        let mut types = Message::default();
        types.text(1, word);
        out.message(22, &types);
    }
    if let Some(items) = value.get("items") {
        out.message(23, &wrapped(1, &schema(items)));
    }
    if value.get("properties").is_some() {
        let mut properties = Message::default();
        for (name, property) in members(&value["properties"]) {
            properties.message(1, &named(name, &schema(property)));
        }
        out.message(25, &properties);
    }
    out.extensions(31, value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a message: (number, bytes of a length-delimited field).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            while let Some((first, rest)) = bytes.split_first() {
                *bytes = rest;
                value |= u64::from(first & 0x7f) << shift;
                shift += 7;
                if first & 0x80 == 0 {
                    break;
                }
            }
            value
        }
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = varint(&mut bytes);
            if tag & 7 == 2 {
                let (field, rest) = bytes.split_at(usize::try_from(value).expect("small"));
                out.push((tag >> 3, field));
                bytes = rest;
            }
        }
        out
    }

    #[test]
    fn definitions_can_be_read_back() {
        let document = encode(&crate::openapi::served::builtin().collect::<Vec<_>>());
        let top = fields(&document);
        let definitions = top.iter().find(|(number, _)| *number == 9).expect("definitions").1;
        let pod =
            fields(definitions).into_iter().map(|(_, pair)| fields(pair)).find(|pair| pair[0].1 == b"io.k8s.api.core.v1.Pod").expect("Pod");
        let extension = fields(pod[1].1).into_iter().find(|(number, _)| *number == 31).expect("an extension").1;
        let pair = fields(extension);
        assert_eq!(pair[0].1, b"x-kubernetes-group-version-kind");
        assert_eq!(fields(pair[1].1)[0].1, br#"[{"group":"","kind":"Pod","version":"v1"}]"#);
    }
}
