//! Wire facts of the built-in kinds: field numbers and wire types from the source of the crate k8s-pb, joined with the JSON
//! names of the definitions of the PyPI package kubernetes-validate and the presence facts of `presence.rs`.
//!
//! `server/api/src/protobuf/tables.rs` documents and reads the format.

mod later;
mod source;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use self::source::{ProtoField, Shape};
use crate::{presence, rust};

const STRING: u16 = 0;
const BYTES: u16 = 1;
const INT32: u16 = 2;
const INT64: u16 = 3;
const BOOL: u16 = 4;
const DOUBLE: u16 = 5;
/// Messages that are written in JSON in ways of their own.
const SPECIAL: [(&str, u16); 12] = [
    ("Quantity", 6),
    ("IntOrString", 7),
    ("Time", 8),
    ("MicroTime", 9),
    ("FieldsV1", 10),
    ("RawExtension", 11),
    ("JSON", 12),
    ("JSONSchemaPropsOrArray", 13),
    ("JSONSchemaPropsOrBool", 14),
    ("JSONSchemaPropsOrStringArray", 15),
    ("ExtraValue", 16),
    ("Verbs", 16),
];
const FIRST_MESSAGE: u16 = 32;

const SHAPE_LIST: u16 = 1;
const SHAPE_MAP: u16 = 2;
const INLINE: u16 = 1 << 2;
const SHOWS_ZERO: u16 = 1 << 3;
const REQUIRED: u16 = 1 << 4;
const NUMBER_SHIFT: u16 = 5;

/// Kinds of the meta group that have no definition of their own.
const EXTRA_ROOTS: [&str; 2] =
    ["io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata", "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList"];

struct Generator<'a> {
    definitions: &'a Map<String, Value>,
    /// Definition by its name in lower case.
    by_lower: HashMap<String, &'a str>,
    messages: BTreeMap<String, Vec<ProtoField>>,
    /// Rows of every message that is reached, by its name in the source.
    reached: BTreeMap<String, Vec<Row>>,
}

struct Row {
    json: String,
    flags: u16,
    number: u16,
    target: Target,
}

enum Target {
    Scalar(u16),
    Message(String),
}

/// Reads k8s-pb's source folder and the definitions, and returns the table.
pub fn generate(source: &Path, definitions: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(definitions).with_context(|| format!("read {}", definitions.display()))?;
    let document: Value = serde_json::from_str(&text)?;
    let definitions = ["$defs", "definitions"].iter().find_map(|key| document.get(key)?.as_object());
    let definitions = definitions.context("the document is no map of definitions")?;
    let mut messages = source::read(source)?;
    later::add(&mut messages);
    let mut generator = Generator {
        definitions,
        by_lower: definitions.keys().map(|name| (lower(name), name.as_str())).collect(),
        messages,
        reached: BTreeMap::new(),
    };
    let names: Vec<String> = generator.messages.keys().cloned().collect();
    for name in names {
        let definition = generator.definition_of(&name);
        let is_root = definition.is_some_and(|d| definitions[d].get("x-kubernetes-group-version-kind").is_some());
        if is_root || EXTRA_ROOTS.iter().any(|root| lower(root) == lower(&name)) {
            generator.reach(&name, definition)?;
        }
    }
    generator.render()
}

/// Names of definitions, packages and fields differ only in case, hyphens, underscores and the dollars of JSON schemas.
fn lower(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | '$')).flat_map(char::to_lowercase).collect()
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

impl<'a> Generator<'a> {
    fn definition_of(&self, message: &str) -> Option<&'a str> {
        self.by_lower.get(&lower(message)).copied()
    }

    fn properties(&self, definition: Option<&str>) -> Option<&'a Map<String, Value>> {
        self.definitions[definition?]["properties"].as_object()
    }

    /// Makes the rows of a message, and of all that it refers to.
    fn reach(&mut self, name: &str, definition: Option<&'a str>) -> anyhow::Result<()> {
        if self.reached.contains_key(name) {
            return Ok(());
        }
        self.reached.insert(name.to_owned(), Vec::new());
        let fields = self.messages.get(name).with_context(|| format!("no message {name}"))?.clone();
        let properties = self.properties(definition);
        let required: Vec<&str> =
            definition.and_then(|d| self.definitions[d]["required"].as_array()).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut rows = Vec::new();
        for field in fields {
            let json = match properties {
                Some(properties) => properties.keys().find(|key| lower(key) == lower(&field.name)).cloned(),
                None => Some(field.name.clone()),
            };
            let inline = json.is_none() && self.is_inline(&field, definition);
            let Some(json) = json.or(inline.then(String::new)) else {
                eprintln!("{name}.{}: not in JSON", field.name);
                continue;
            };
            let target = self.target(&field)?;
            if let Target::Message(message) = &target {
                let own = self.definition_of(message);
                self.reach(message, if inline { own.or(definition) } else { own })?;
            }
            let mut flags = match field.shape {
                Shape::Single => 0,
                Shape::List => SHAPE_LIST,
                Shape::Map => SHAPE_MAP,
            };
            let is_required = required.contains(&json.as_str());
            flags |= if inline { INLINE } else { 0 };
            flags |= if is_required { REQUIRED } else { 0 };
            flags |= if shows_zero(name, &json, &target, is_required) { SHOWS_ZERO } else { 0 };
            rows.push(Row { json, flags, number: field.number, target });
        }
        for property in properties.into_iter().flat_map(Map::keys) {
            let known = rows.iter().any(|r| r.json == *property || r.flags & INLINE != 0);
            if !known && !matches!(property.as_str(), "apiVersion" | "kind") {
                eprintln!("{name}.{property}: not in protobuf");
            }
        }
        rows.sort_by_key(|row| row.number);
        self.reached.insert(name.to_owned(), rows);
        Ok(())
    }

    /// Whether the fields of a message field are the parent's own in JSON.
    fn is_inline(&self, field: &ProtoField, definition: Option<&str>) -> bool {
        let Some(inner) = field.message.as_ref().and_then(|m| self.messages.get(m)) else { return false };
        let Some(properties) = self.properties(definition) else { return false };
        field.shape == Shape::Single
            && !inner.is_empty()
            && inner.iter().all(|f| properties.keys().any(|key| lower(key) == lower(&f.name)) || self.is_inline(f, definition))
    }

    fn target(&self, field: &ProtoField) -> anyhow::Result<Target> {
        let Some(message) = &field.message else {
            return Ok(Target::Scalar(match field.wire.as_str() {
                "string" => STRING,
                "bytes" => BYTES,
                "int32" => INT32,
                "int64" => INT64,
                "bool" => BOOL,
                "double" => DOUBLE,
                other => bail!("{}: wire type {other}", field.name),
            }));
        };
        let special = SPECIAL.iter().find(|(name, _)| lower(name) == lower(short(message)));
        match special {
            Some((_, code)) => Ok(Target::Scalar(*code)),
            None => Ok(Target::Message(message.clone())),
        }
    }

    fn render(&self) -> anyhow::Result<String> {
        let mut strings = Strings::default();
        strings.index("")?;
        // Sorted by the name that the schema tables use.
        let mut order: Vec<(&str, &str)> = Vec::new();
        for name in self.reached.keys() {
            let extra = EXTRA_ROOTS.iter().find(|root| lower(root) == lower(name)).copied();
            order.push((self.definition_of(name).or(extra).unwrap_or(name), name));
        }
        order.sort_unstable();
        let index: HashMap<&str, usize> = order.iter().enumerate().map(|(i, (_, name))| (*name, i)).collect();
        let (mut messages, mut fields) = (Vec::new(), Vec::new());
        for (definition, name) in &order {
            let rows = &self.reached[*name];
            messages.push(format!("{:?}", [strings.index(definition)?, u16::try_from(fields.len())?, u16::try_from(rows.len())?]));
            for row in rows {
                let target = match &row.target {
                    Target::Scalar(code) => *code,
                    Target::Message(message) => FIRST_MESSAGE + u16::try_from(index[message.as_str()])?,
                };
                fields.push(format!("{:?}", [strings.index(&row.json)?, row.number << NUMBER_SHIFT | row.flags, target]));
            }
        }
        let mut out = String::from(
            "//! Wire facts of the built-in kinds of Kubernetes v1.36; see `tables.rs` for the format.\n//!\n\
             //! Generated by `cargo run -p xtask -- generate protobuf`; don't edit.\n\n",
        );
        writeln!(out, "pub(super) const TEXT: &str = concat!(")?;
        let mut offsets = vec![0_usize];
        for line in strings.list.chunks(8) {
            let quoted: Vec<String> = line.iter().map(|s| format!("{s:?}")).collect();
            writeln!(out, "    {},", quoted.join(", "))?;
        }
        for string in &strings.list {
            offsets.push(offsets.last().copied().unwrap_or_default() + string.len());
        }
        writeln!(out, ");")?;
        rust::array(&mut out, "STRINGS", "u32", &offsets.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        rust::array(&mut out, "MESSAGES", "[u16; 3]", &messages)?;
        rust::array(&mut out, "FIELDS", "[u16; 3]", &fields)?;
        Ok(out.replacen("pub(super) const TEXT", "#[rustfmt::skip]\npub(super) const TEXT", 1))
    }
}

fn shows_zero(message: &str, json: &str, target: &Target, required: bool) -> bool {
    let Target::Scalar(scalar) = target else { return true };
    !presence::omits_zero(message, json, matches!(*scalar, STRING | BYTES), required)
}

/// All strings, each once.
#[derive(Default)]
struct Strings {
    list: Vec<String>,
    index: HashMap<String, u16>,
}

impl Strings {
    fn index(&mut self, text: &str) -> anyhow::Result<u16> {
        if let Some(index) = self.index.get(text) {
            return Ok(*index);
        }
        let index = u16::try_from(self.list.len()).context("more strings than an index holds")?;
        self.list.push(text.to_owned());
        self.index.insert(text.to_owned(), index);
        Ok(index)
    }
}
