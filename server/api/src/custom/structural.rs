//! A structural schema: the parsed `openAPIV3Schema` of one version.
//!
//! Holds the data for pruning, defaulting and validation, with compiled expressions. Does not validate schemas: a schema is read after
//! the rules of [`super::structure_rules`] and [`super::schema_rules`] have accepted it, and parts that they would refuse are read as
//! absent. Depth and number of parts are bounded by the size of a definition and by [`MAX_DEPTH`].
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::formats;
use super::pattern::Pattern;

/// How many schemas may be inside of one another.
pub const MAX_DEPTH: usize = 60;

/// A schema and everything below it.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean` or empty.
    pub type_: String,
    /// Whether null is a value.
    pub nullable: bool,
    /// What an absent field is set to.
    pub default: Option<Value>,
    /// The fields of an object.
    pub properties: BTreeMap<String, Structural>,
    /// The values of a map.
    pub additional: Option<Additional>,
    /// The items of a list.
    pub items: Option<Box<Structural>>,
    /// x-kubernetes-preserve-unknown-fields
    pub preserves_unknown: bool,
    /// x-kubernetes-embedded-resource
    pub is_embedded: bool,
    /// x-kubernetes-int-or-string
    pub is_int_or_string: bool,
    /// x-kubernetes-list-type
    pub list_type: ListType,
    /// x-kubernetes-list-map-keys
    pub list_keys: Vec<String>,
    /// x-kubernetes-validations, as they are written.
    pub rules: Vec<Value>,
    /// x-kubernetes-map-type: atomic
    pub is_atomic_map: bool,
    /// Everything that restricts values; absent where there is nothing.
    pub limits: Option<Box<Limits>>,
}

/// `additionalProperties`.
#[derive(Clone, Debug)]
pub enum Additional {
    /// Any value, or none at all.
    Allowed(bool),
    /// Values of this schema.
    Schema(Box<Structural>),
}

/// How the items of a list relate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Values, each once.
    Set,
    /// Objects, identified by their key fields.
    Map,
}

/// What restricts a value.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The format of a string or number; empty where there is none that is known.
    pub format: String,
    /// The largest number.
    pub maximum: Option<f64>,
    /// Whether the largest number itself is out.
    pub exclusive_maximum: bool,
    /// The smallest number.
    pub minimum: Option<f64>,
    /// Whether the smallest number itself is out.
    pub exclusive_minimum: bool,
    /// The value that a number must be a multiple of.
    pub multiple_of: Option<f64>,
    /// Characters at most.
    pub max_length: Option<i64>,
    /// Characters at least.
    pub min_length: Option<i64>,
    /// The pattern that a string must match.
    pub pattern: Option<Pattern>,
    /// Items at most.
    pub max_items: Option<i64>,
    /// Items at least.
    pub min_items: Option<i64>,
    /// Fields at most.
    pub max_properties: Option<i64>,
    /// Fields at least.
    pub min_properties: Option<i64>,
    /// The values.
    pub values: Vec<Value>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Schemas that must all hold.
    pub all_of: Vec<Structural>,
    /// Schemas of which one must hold.
    pub any_of: Vec<Structural>,
    /// Schemas of which exactly one must hold.
    pub one_of: Vec<Structural>,
    /// A schema that must not hold.
    pub not: Option<Box<Structural>>,
}

impl Structural {
    /// Reads a schema. Too deep a schema, or an expression that does not compile, is an error.
    pub fn parse(schema: &Value) -> Result<Structural, String> {
        parse(schema, 0)
    }

    /// The schema of a field of an object: its own, or that of all values of a map.
    pub fn field(&self, key: &str) -> Option<&Structural> {
        self.properties.get(key).or_else(|| self.values())
    }

    /// The schema of the values of a map.
    pub fn values(&self) -> Option<&Structural> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// The schema at a simple path (`.spec.replicas`, without lists).
    pub fn at_path(&self, path: &str) -> Option<&Structural> {
        let path = path.strip_prefix('.')?;
        path.split('.').try_fold(self, |schema, key| schema.field(key))
    }
}

fn parse(schema: &Value, depth: usize) -> Result<Structural, String> {
    if depth >= MAX_DEPTH {
        return Err(format!("schemas are nested more than {MAX_DEPTH} deep"));
    }
    let Some(map) = schema.as_object() else { return Ok(Structural::default()) };
    let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut properties = BTreeMap::new();
    for (name, inner) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        properties.insert(name.clone(), parse(inner, depth + 1)?);
    }
    let additional = match map.get("additionalProperties") {
        Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
        Some(inner @ Value::Object(_)) => Some(Additional::Schema(Box::new(parse(inner, depth + 1)?))),
        _ => None,
    };
    let items = match map.get("items") {
        Some(inner @ Value::Object(_)) => Some(Box::new(parse(inner, depth + 1)?)),
        _ => None,
    };
    Ok(Structural {
        type_: text("type").to_owned(),
        nullable: flag("nullable"),
        default: map.get("default").filter(|value| !value.is_null()).cloned(),
        properties,
        additional,
        items,
        preserves_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        is_embedded: flag("x-kubernetes-embedded-resource"),
        is_int_or_string: flag("x-kubernetes-int-or-string"),
        list_type: match text("x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        },
        list_keys: strings(map, "x-kubernetes-list-map-keys"),
        rules: map.get("x-kubernetes-validations").and_then(Value::as_array).cloned().unwrap_or_default(),
        is_atomic_map: text("x-kubernetes-map-type") == "atomic",
        limits: limits(map, depth)?.map(Box::new),
    })
}

fn strings(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let items = map.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The keys that restrict values.
const LIMITS: [&str; 17] = [
    "format",
    "maximum",
    "minimum",
    "multipleOf",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "maxProperties",
    "minProperties",
    "enum",
    "required",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

fn limits(map: &Map<String, Value>, depth: usize) -> Result<Option<Limits>, String> {
    if !LIMITS.iter().any(|key| map.contains_key(*key)) {
        return Ok(None);
    }
    let number = |key: &str| map.get(key).and_then(Value::as_f64);
    let count = |key: &str| map.get(key).and_then(Value::as_i64);
    let flag = |key: &str| map.get(key) == Some(&Value::Bool(true));
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let all = |key: &str| -> Result<Vec<Structural>, String> {
        map.get(key).and_then(Value::as_array).into_iter().flatten().map(|inner| parse(inner, depth + 1)).collect()
    };
    Ok(Some(Limits {
        format: Some(text("format")).filter(|format| formats::is_known(text("type"), format)).unwrap_or_default().to_owned(),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: match text("pattern") {
            "" => None,
            source => Some(Pattern::new(source)?),
        },
        max_items: count("maxItems"),
        min_items: count("minItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        values: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        required: strings(map, "required"),
        all_of: all("allOf")?,
        any_of: all("anyOf")?,
        one_of: all("oneOf")?,
        not: match map.get("not") {
            Some(inner @ Value::Object(_)) => Some(Box::new(parse(inner, depth + 1)?)),
            _ => None,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_is_read() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "additionalProperties": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"]}}},
            "port": {"x-kubernetes-int-or-string": true, "default": 80},
        }}))
        .unwrap();
        let list = schema.at_path(".spec.any").unwrap();
        assert_eq!((list.list_type, list.list_keys.as_slice()), (ListType::Map, &["name".to_owned()][..]));
        assert_eq!(list.items.as_ref().unwrap().limits.as_ref().unwrap().required, ["name"]);
        assert!(schema.properties["port"].is_int_or_string && schema.at_path(".nope").is_none());
    }

    #[test]
    fn security_depth_is_bounded() {
        let mut schema = json!({"type": "string"});
        for _ in 0..MAX_DEPTH {
            schema = json!({"type": "array", "items": schema});
        }
        assert!(Structural::parse(&schema).unwrap_err().contains("nested more than"));
        assert!(Structural::parse(&schema["items"]).is_ok());
        assert!(Structural::parse(&json!({"pattern": "("})).is_err());
    }
}
