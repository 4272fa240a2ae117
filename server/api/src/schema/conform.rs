//! Making JSON fit a type of the tables: the recursive part of decoding.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::go_json::{Node, number};
use super::tables::{Field, Kind, TypeId, definition};
use crate::field::quote;
use crate::quantity::Quantity;
use crate::time;

/// More problems than this are not reported, as upstream.
const PROBLEMS_MAX: usize = 100;

/// An object made to fit its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Conformed {
    /// The object without unknown fields.
    pub object: Value,
    /// The dropped fields: `unknown field "a.b"`, `duplicate field "a.b"`.
    pub problems: Vec<String>,
}

impl Conformed {
    /// With a problem that was found before.
    pub(super) fn after(mut self, problem: Option<String>) -> Conformed {
        self.problems.splice(0..0, problem);
        self
    }
}

/// State of one walk over a document.
#[derive(Default)]
pub(super) struct Conformer {
    /// Path in the document: `spec.containers[0].image`.
    path: String,
    /// Field names only, and the Go struct that has the last one: what type errors name.
    fields: Vec<&'static str>,
    owner: &'static str,
    problems: Vec<String>,
    /// The first type error; the walk goes on, so that later ones don't hide it.
    error: Option<String>,
}

/// Makes a document fit a type.
pub(super) fn conform(node: Node, ty: TypeId) -> Result<Conformed, String> {
    let mut conformer = Conformer::default();
    let object = conformer.value(node, ty).unwrap_or_else(|| Value::Object(Map::new()));
    match conformer.error {
        Some(error) => Err(error),
        None => Ok(Conformed { object, problems: conformer.problems }),
    }
}

/// Makes a value that stands at `path` fit its type. Type errors name the type alone.
pub(super) fn conform_at(node: Node, ty: TypeId, path: &str) -> Result<Conformed, String> {
    let mut conformer = Conformer { path: path.to_owned(), ..Conformer::default() };
    let object = conformer.value(node, ty).unwrap_or_else(|| Value::Object(Map::new()));
    match conformer.error {
        Some(error) => Err(error),
        None => Ok(Conformed { object, problems: conformer.problems }),
    }
}

// === impl Conformer ===

impl Conformer {
    /// Drops unknown fields in place.
    pub(super) fn prune(value: &mut Value, ty: TypeId) {
        match (value, ty.kind()) {
            (Value::Object(map), Kind::Struct) => map.retain(|key, child| match ty.field(key) {
                Some(field) => {
                    Self::prune(child, field.type_id());
                    true
                }
                None => false,
            }),
            (Value::Object(map), Kind::Map(element)) => map.values_mut().for_each(|child| Self::prune(child, element)),
            (Value::Array(items), Kind::List(element)) => items.iter_mut().for_each(|child| Self::prune(child, element)),
            _ => {}
        }
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    fn fail(&mut self, text: String) -> Option<Value> {
        self.error.get_or_insert(text);
        None
    }

    fn mismatch(&mut self, word: &str, ty: TypeId) -> Option<Value> {
        let go_type = go_type(ty);
        let text = if self.fields.is_empty() {
            format!("json: cannot unmarshal {word} into Go value of type {go_type}")
        } else {
            format!("json: cannot unmarshal {word} into Go struct field {}.{} of type {go_type}", self.owner, self.fields.join("."))
        };
        self.fail(text)
    }

    /// None if the value is null or has an error.
    fn value(&mut self, node: Node, ty: TypeId) -> Option<Value> {
        match (ty.kind(), node) {
            (Kind::Any | Kind::AnyObject, node) => match nested(ty) {
                Some(inner) => self.nested(node, inner),
                None => Some(node.into_value()),
            },
            (_, Node::Null) => None,
            (Kind::Struct, Node::Object(pairs)) => Some(self.object(pairs, ty)),
            (Kind::Map(element), Node::Object(pairs)) => Some(self.map(pairs, element)),
            (Kind::List(element), Node::Array(items)) => Some(self.list(items, element)),
            (Kind::String, Node::String(text)) => Some(Value::String(text)),
            (Kind::Bool, Node::Bool(flag)) => Some(Value::Bool(flag)),
            (Kind::Int32, Node::Number(text)) => match text.parse::<i32>() {
                Ok(integer) => Some(integer.into()),
                Err(_) => self.mismatch(&format!("number {text}"), ty),
            },
            (Kind::Int64, Node::Number(text)) => match text.parse::<i64>() {
                Ok(integer) => Some(integer.into()),
                Err(_) => self.mismatch(&format!("number {text}"), ty),
            },
            (Kind::Double, Node::Number(text)) => match number(&text) {
                Some(number) => Some(Value::Number(number)),
                None => self.mismatch(&format!("number {text}"), ty),
            },
            (Kind::Bytes, Node::String(text)) => self.bytes(&text),
            (Kind::IntOrString, node) => self.int_or_string(node),
            (Kind::Quantity, node) => self.quantity(node),
            (Kind::Time | Kind::MicroTime, node) => self.time(node, ty.kind() == Kind::MicroTime),
            (_, node) => self.mismatch(node.type_word(), ty),
        }
    }

    /// A schema, or a list of schemas, or something else. Upstream's decoders of these read what is inside without reporting it.
    fn nested(&mut self, node: Node, ty: TypeId) -> Option<Value> {
        let known = self.problems.len();
        let value = match node {
            Node::Object(pairs) => Some(self.object(pairs, ty)),
            Node::Array(items) => Some(items.into_iter().filter_map(|item| self.nested(item, ty)).collect()),
            other => Some(other.into_value()),
        };
        self.problems.truncate(known);
        value
    }

    fn object(&mut self, pairs: Vec<(String, Node)>, ty: TypeId) -> Value {
        let mut map = Map::new();
        let mut seen: Vec<&'static str> = Vec::with_capacity(pairs.len());
        let (outer, path_len) = (self.owner, self.path.len());
        for (key, node) in pairs {
            self.push_key(&key);
            match ty.field(&key) {
                None => self.problem(format!("unknown field {}", quote(&self.path))),
                Some(field) => {
                    if seen.contains(&field.name()) {
                        self.problem(format!("duplicate field {}", quote(&self.path)));
                    } else {
                        seen.push(field.name());
                    }
                    self.fields.push(field.name());
                    self.owner = short_name(ty);
                    let value = self.value(node, field.type_id());
                    self.fields.pop();
                    self.owner = outer;
                    match value {
                        Some(value) if !omitted_empty(&value, ty, field) => {
                            map.insert(key, value);
                        }
                        _ => {
                            map.remove(&key);
                        }
                    }
                }
            }
            self.path.truncate(path_len);
        }
        Value::Object(map)
    }

    fn map(&mut self, pairs: Vec<(String, Node)>, element: TypeId) -> Value {
        let mut map = Map::new();
        let path_len = self.path.len();
        for (key, node) in pairs {
            self.push_key(&key);
            if map.contains_key(&key) {
                self.problem(format!("duplicate field {}", quote(&self.path)));
            }
            let value = self.value(node, element).unwrap_or_else(|| zero(element));
            map.insert(key, value);
            self.path.truncate(path_len);
        }
        Value::Object(map)
    }

    fn list(&mut self, items: Vec<Node>, element: TypeId) -> Value {
        let path_len = self.path.len();
        let mut list = Vec::with_capacity(items.len());
        for (i, node) in items.into_iter().enumerate() {
            self.path.push_str(&format!("[{i}]"));
            list.push(self.value(node, element).unwrap_or_else(|| zero(element)));
            self.path.truncate(path_len);
        }
        Value::Array(list)
    }

    fn push_key(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }

    fn bytes(&mut self, text: &str) -> Option<Value> {
        match base64_problem(text) {
            Some(position) => self.fail(format!("illegal base64 data at input byte {position}")),
            None => Some(Value::String(text.replace(['\r', '\n'], ""))),
        }
    }

    fn int_or_string(&mut self, node: Node) -> Option<Value> {
        match node {
            Node::String(text) => Some(Value::String(text)),
            Node::Number(text) => match text.parse::<i32>() {
                Ok(integer) => Some(integer.into()),
                Err(_) => self.fail(format!("json: cannot unmarshal number {text} into Go value of type int32")),
            },
            other => self.fail(format!("json: cannot unmarshal {} into Go value of type int32", other.type_word())),
        }
    }

    fn quantity(&mut self, node: Node) -> Option<Value> {
        let text = match &node {
            Node::String(text) | Node::Number(text) => text.trim(),
            _ => "x",
        };
        match text.parse::<Quantity>() {
            Ok(quantity) => Some(Value::String(quantity.to_string())),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn time(&mut self, node: Node, micro: bool) -> Option<Value> {
        let Node::String(text) = node else {
            return self.fail(format!("json: cannot unmarshal {} into Go value of type string", node.type_word()));
        };
        match time::parse(&text) {
            Some(time) if micro => Some(Value::String(time::format_micro(time))),
            Some(time) => Some(Value::String(time::format(time))),
            None => self.fail(time_problem(&text, micro)),
        }
    }
}

/// The schema type that a value of `ty` may hold (`JSONSchemaPropsOrBool` and the like), which the published document calls any value.
fn nested(ty: TypeId) -> Option<TypeId> {
    static SCHEMA: LazyLock<Option<TypeId>> =
        LazyLock::new(|| definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"));
    if ty.name().contains("JSONSchemaPropsOr") { *SCHEMA } else { None }
}

/// Whether an empty value is the same as none: upstream's encoder omits optional lists and maps without entries, and the zero of
/// scalars that are no pointers there. Other zeros stay, because they mean something.
fn omitted_empty(value: &Value, owner: TypeId, field: Field) -> bool {
    // Optional in the schema, yet always written.
    let always_written = matches!((short_name(owner), field.name()), ("Role" | "ClusterRole", "rules"));
    let optional = !field.is_required() && !always_written;
    match (value, field.type_id().kind()) {
        (Value::Array(items), Kind::List(_)) => optional && items.is_empty(),
        (Value::Object(map), Kind::Map(_)) => optional && map.is_empty(),
        (Value::String(text), _) => field.omits_zero() && text.is_empty(),
        (Value::Number(number), _) => field.omits_zero() && number.as_f64() == Some(0.0),
        (Value::Bool(flag), _) => field.omits_zero() && !flag,
        _ => false,
    }
}

/// What Go's decoder leaves in a slot of a list or map that is null.
fn zero(ty: TypeId) -> Value {
    match ty.kind() {
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => 0.into(),
        Kind::Bool => Value::Bool(false),
        Kind::Quantity => Value::String("0".to_owned()),
        Kind::Struct => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn short_name(ty: TypeId) -> &'static str {
    ty.name().rsplit('.').next().unwrap_or_default()
}

/// How Go prints the type.
fn go_type(ty: TypeId) -> String {
    match ty.kind() {
        Kind::String => "string".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::List(element) => format!("[]{}", go_type(element)),
        Kind::Map(element) if element.kind() == Kind::Quantity => "v1.ResourceList".to_owned(),
        Kind::Map(element) => format!("map[string]{}", go_type(element)),
        _ => {
            let mut parts = ty.name().rsplit('.');
            let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{name}")
        }
    }
}

/// Where Go's base64 decoder (standard alphabet, padded, line breaks ignored) stops.
fn base64_problem(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quantum = 0;
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' => return padding_problem(bytes, i, quantum),
            b if b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/') => quantum = (quantum + 1) % 4,
            _ => return Some(i),
        }
    }
    if quantum == 0 { None } else { Some(bytes.len().saturating_sub(quantum)) }
}

fn padding_problem(bytes: &[u8], at: usize, quantum: usize) -> Option<usize> {
    let rest: Vec<(usize, u8)> =
        bytes[at..].iter().enumerate().map(|(i, b)| (at + i, *b)).filter(|(_, b)| !matches!(b, b'\r' | b'\n')).collect();
    match (quantum, rest.as_slice()) {
        (0 | 1, _) => Some(at),
        (2, [_]) => Some(bytes.len()),
        (2, [_, (i, second), ..]) if *second != b'=' => Some(*i),
        (2, [_, _, (i, _), ..]) | (3, [_, (i, _), ..]) => Some(*i),
        _ => None,
    }
}

/// Go's text for a time that doesn't parse.
fn time_problem(text: &str, micro: bool) -> String {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let (text_quoted, layout_quoted) = (quote(text), quote(layout));
    let mut rest = text;
    for element in ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"] {
        let taken = if element.len() == 1 {
            rest.strip_prefix(element)
        } else {
            rest.get(..element.len()).filter(|d| d.bytes().all(|b| b.is_ascii_digit())).map(|d| &rest[d.len()..])
        };
        match taken {
            Some(left) => rest = left,
            None => return format!("parsing time {text_quoted} as {layout_quoted}: cannot parse {} as {}", quote(rest), quote(element)),
        }
    }
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|d| d.parse::<u32>().ok()).unwrap_or_default();
    let out_of_range = [(number(5..7), 1, 12, "month"), (number(8..10), 1, 31, "day"), (number(11..13), 0, 23, "hour")]
        .into_iter()
        .chain([(number(14..16), 0, 59, "minute"), (number(17..19), 0, 59, "second")])
        .find(|(value, low, high, _)| value < low || value > high);
    match out_of_range {
        Some((_, _, _, what)) => format!("parsing time {text_quoted}: {what} out of range"),
        None => {
            let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            let zone_ok = zone == "Z" || (zone.len() == 6 && zone.starts_with(['+', '-']));
            if zone_ok {
                format!("parsing time {text_quoted}: day out of range")
            } else {
                format!("parsing time {text_quoted} as {layout_quoted}: cannot parse {} as \"Z07:00\"", quote(zone))
            }
        }
    }
}
