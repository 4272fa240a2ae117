//! Schema facts of the built-in kinds, from the definitions of the PyPI package kubernetes-validate and the presence facts of `presence.rs`.
//!
//! Written as arrays of small numbers over one string table: no start-up cost, no heap, no relocations.
//! `server/api/src/schema/tables.rs` documents and reads the format.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use crate::{presence, rust};

const REQUIRED: u16 = 1;
const LIST_ATOMIC: u16 = 1 << 1;
const LIST_SET: u16 = 1 << 2;
const LIST_MAP: u16 = 1 << 3;
const PATCH_MERGE: u16 = 1 << 4;
const PATCH_RETAIN_KEYS: u16 = 1 << 5;
const MAP_ATOMIC: u16 = 1 << 6;
const OMITS_ZERO: u16 = 1 << 7;
const MAP_GRANULAR: u16 = 1 << 8;

const STRUCT: u16 = 0;
const STRING: u16 = 1;
const INT32: u16 = 2;
const INT64: u16 = 3;
const DOUBLE: u16 = 4;
const BOOL: u16 = 5;
const BYTES: u16 = 6;
const INT_OR_STRING: u16 = 7;
const QUANTITY: u16 = 8;
const TIME: u16 = 9;
const MICRO_TIME: u16 = 10;
const ANY: u16 = 11;
const ANY_OBJECT: u16 = 12;
const LIST: u16 = 13;
const MAP: u16 = 14;

/// Type: name, kind, first field or element, number of fields, flags.
type TypeRow = [u16; 5];
/// Field: name, type, flags, merge key, list map keys.
type FieldRow = [u16; 5];

struct Tables<'a> {
    definitions: &'a Map<String, Value>,
    strings: Vec<String>,
    string_index: HashMap<String, u16>,
    types: Vec<TypeRow>,
    /// Index of a type by its definition or, for lists and maps, by its shape.
    type_index: HashMap<String, u16>,
    fields: Vec<FieldRow>,
}

/// Reads the definitions and returns the table.
pub fn generate(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let document: Value = serde_json::from_str(&text)?;
    let definitions = ["$defs", "definitions"].iter().find_map(|key| document.get(key)?.as_object());
    let definitions = definitions.or(document.as_object()).context("the document is no map of definitions")?;
    let mut tables = Tables {
        definitions,
        strings: Vec::new(),
        string_index: HashMap::new(),
        types: Vec::new(),
        type_index: HashMap::new(),
        fields: Vec::new(),
    };
    tables.string("")?;
    for name in definitions.keys() {
        tables.definition(name)?;
    }
    // Structs get their rows first, so that a definition may refer to itself; their fields follow.
    for name in definitions.keys() {
        tables.properties(name)?;
    }
    let roots = tables.roots()?;
    render(&tables, &roots)
}

impl Tables<'_> {
    fn string(&mut self, text: &str) -> anyhow::Result<u16> {
        if let Some(index) = self.string_index.get(text) {
            return Ok(*index);
        }
        let index = u16::try_from(self.strings.len()).context("more strings than an index holds")?;
        self.strings.push(text.to_owned());
        self.string_index.insert(text.to_owned(), index);
        Ok(index)
    }

    fn add_type(&mut self, shape: &str, row: TypeRow) -> anyhow::Result<u16> {
        if let Some(index) = self.type_index.get(shape) {
            return Ok(*index);
        }
        let index = u16::try_from(self.types.len()).context("more types than an index holds")?;
        self.types.push(row);
        self.type_index.insert(shape.to_owned(), index);
        Ok(index)
    }

    fn definition(&mut self, name: &str) -> anyhow::Result<u16> {
        if let Some(index) = self.type_index.get(name) {
            return Ok(*index);
        }
        let schema = &self.definitions[name];
        let kind = match name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => QUANTITY,
            "IntOrString" => INT_OR_STRING,
            "Time" => TIME,
            "MicroTime" => MICRO_TIME,
            "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => ANY,
            "FieldsV1" | "RawExtension" | "Patch" => ANY_OBJECT,
            _ => STRUCT,
        };
        let flags = if schema["x-kubernetes-map-type"] == "atomic" { MAP_ATOMIC } else { 0 };
        let string = self.string(name)?;
        self.add_type(name, [string, kind, 0, 0, flags])
    }

    fn properties(&mut self, name: &str) -> anyhow::Result<()> {
        let schema = &self.definitions[name];
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Ok(());
        };
        let required: Vec<&str> = strings(schema.get("required"));
        let mut rows = Vec::new();
        for (field, property) in properties {
            let type_index = self.type_of(property).with_context(|| format!("{name}.{field}"))?;
            let is_required = required.contains(&field.as_str());
            let mut flags = if is_required { REQUIRED } else { 0 };
            let scalar = self.types[usize::from(type_index)][1];
            let is_scalar = matches!(scalar, STRING | INT32 | INT64 | DOUBLE | BOOL | BYTES);
            if is_scalar && presence::omits_zero(name, field, matches!(scalar, STRING | BYTES), is_required) {
                flags |= OMITS_ZERO;
            }
            flags |= match property["x-kubernetes-list-type"].as_str() {
                Some("atomic") => LIST_ATOMIC,
                Some("set") => LIST_SET,
                Some("map") => LIST_MAP,
                _ => 0,
            };
            for strategy in property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default().split(',') {
                flags |= match strategy {
                    "merge" => PATCH_MERGE,
                    "retainKeys" => PATCH_RETAIN_KEYS,
                    "" | "replace" => 0,
                    other => bail!("{name}.{field}: unknown patch strategy {other}"),
                };
            }
            flags |= match property["x-kubernetes-map-type"].as_str() {
                Some("atomic") => MAP_ATOMIC,
                Some("granular") => MAP_GRANULAR,
                Some(other) => bail!("{name}.{field}: unknown map type {other}"),
                None => 0,
            };
            let merge_key = self.string(property["x-kubernetes-patch-merge-key"].as_str().unwrap_or_default())?;
            let map_keys = strings(property.get("x-kubernetes-list-map-keys")).join(",");
            let map_keys = self.string(&map_keys)?;
            rows.push((field.clone(), [self.string(field)?, type_index, flags, merge_key, map_keys]));
        }
        rows.sort();
        let index = usize::from(self.type_index[name]);
        self.types[index][2] = u16::try_from(self.fields.len()).context("more fields than an index holds")?;
        self.types[index][3] = u16::try_from(rows.len())?;
        self.fields.extend(rows.into_iter().map(|(_, row)| row));
        Ok(())
    }

    fn type_of(&mut self, schema: &Value) -> anyhow::Result<u16> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.definition(reference.rsplit('/').next().unwrap_or_default());
        }
        let json_type = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or_default(),
            other => other.as_str().unwrap_or_default(),
        };
        let format = schema["format"].as_str().unwrap_or_default();
        let kind = match (json_type, format) {
            ("string", "byte") => BYTES,
            ("string", _) => STRING,
            ("integer", "int32") => INT32,
            ("integer", _) => INT64,
            ("number", _) => DOUBLE,
            ("boolean", _) => BOOL,
            ("array", _) => {
                let element = self.type_of(&schema["items"])?;
                return self.add_type(&format!("[]{element}"), [0, LIST, element, 0, 0]);
            }
            ("object", _) => {
                let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) else {
                    return self.add_type("object", [0, ANY_OBJECT, 0, 0, 0]);
                };
                let element = self.type_of(values)?;
                return self.add_type(&format!("map:{element}"), [0, MAP, element, 0, 0]);
            }
            other => bail!("unknown type {other:?}"),
        };
        self.add_type(&format!("scalar:{kind}"), [0, kind, 0, 0, 0])
    }

    /// Group, version, kind and type of everything that can be the root of a document, sorted by names.
    fn roots(&mut self) -> anyhow::Result<BTreeMap<(String, String, String), u16>> {
        let mut roots = BTreeMap::new();
        for (name, schema) in self.definitions {
            let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
            for kind in kinds.into_iter().flatten() {
                let part = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
                let names = (part("group"), part("version"), part("kind"));
                for text in [&names.0, &names.1, &names.2] {
                    self.string(text)?;
                }
                roots.insert(names, self.type_index[name]);
            }
        }
        Ok(roots)
    }
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn render(tables: &Tables<'_>, roots: &BTreeMap<(String, String, String), u16>) -> anyhow::Result<String> {
    let mut out = String::from(
        "//! Schema facts of the built-in kinds of Kubernetes v1.36; see `tables.rs` for the format.\n//!\n\
         //! Generated by `cargo run -p xtask -- generate schema`; don't edit.\n\n",
    );
    writeln!(out, "pub(super) const TEXT: &str = concat!(")?;
    let mut offsets = vec![0_usize];
    for string in &tables.strings {
        writeln!(out, "    {string:?},")?;
        offsets.push(offsets.last().copied().unwrap_or_default() + string.len());
    }
    writeln!(out, ");")?;
    rust::array(&mut out, "STRINGS", "u32", &offsets.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    rust::array(&mut out, "TYPES", "[u16; 5]", &tables.types.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>())?;
    rust::array(&mut out, "FIELDS", "[u16; 5]", &tables.fields.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>())?;
    let index = |text: &String| tables.string_index[text];
    let rows: Vec<String> = roots.iter().map(|((g, v, k), t)| format!("{:?}", [index(g), index(v), index(k), *t])).collect();
    rust::array(&mut out, "ROOTS", "[u16; 4]", &rows)?;
    Ok(out)
}
