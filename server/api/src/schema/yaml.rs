//! YAML bodies, as nodes.
//!
//! YAML is read into the same [`Node`]s as JSON, so everything after it is shared. Mapping keys that are no strings become
//! their text, as in upstream's YAML-to-JSON step.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::go_json::{MAX_DEPTH, Node};

/// Parses a document, keeping duplicate keys.
pub(super) fn parse(body: &[u8]) -> Result<Node, String> {
    let text = std::str::from_utf8(body).map_err(|_| "error converting YAML to JSON: yaml: invalid UTF-8".to_owned())?;
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough, with_snippet: false, legacy_octal_numbers: true };
    let node: YamlNode = serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        let text = e.to_string();
        format!("error converting YAML to JSON: yaml: {}", text.lines().next().unwrap_or_default())
    })?;
    if depth(&node.0) > MAX_DEPTH {
        return Err("error converting YAML to JSON: yaml: exceeded max depth".to_owned());
    }
    Ok(node.0)
}

/// Where a document has a key twice in one mapping, in the words of upstream's YAML library; None: nowhere.
pub(super) fn duplicate(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error, with_snippet: false, legacy_octal_numbers: true };
    match serde_saphyr::from_str_with_options::<YamlNode>(text, options) {
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let key = crate::field::quote(&key.unwrap_or_default());
            Some(format!("yaml: unmarshal errors:\n  line {}: key {key} already set in map", location.line()))
        }
        _ => None,
    }
}

fn depth(node: &Node) -> usize {
    match node {
        Node::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Node::Object(pairs) => 1 + pairs.iter().map(|(_, v)| depth(v)).max().unwrap_or_default(),
        _ => 0,
    }
}

struct YamlNode(Node);

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(YamlNode)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }

    /// As Go's JSON encoder writes it: a whole number has no fraction, however it was spelled (`1e1`, `10.0`).
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Node, E> {
        const EXPONENT_FROM: f64 = 1e21;
        if number.fract() == 0.0 && number.abs() < EXPONENT_FROM {
            return Ok(Node::Number(format!("{number:.0}")));
        }
        match serde_json::Number::from_f64(number) {
            Some(number) => Ok(Node::Number(number.to_string())),
            None => Err(E::custom(format!("json: unsupported value: {number}"))),
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::String(text))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(YamlNode(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some((YamlNode(key), YamlNode(value))) = entries.next_entry()? {
            pairs.push((key_text(key), value));
        }
        Ok(Node::Object(pairs))
    }
}

fn key_text(key: Node) -> String {
    match key {
        Node::String(text) | Node::Number(text) => text,
        Node::Bool(flag) => flag.to_string(),
        other => other.into_value().to_string(),
    }
}
