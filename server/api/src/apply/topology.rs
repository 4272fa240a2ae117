//! What the schema says about owning and merging: which lists and maps are one value, and by what the items of a list are told apart.
//!
//! Reads the generated tables for built-in kinds and structural schemas for custom resources; what no schema describes is deduced
//! from values. Upstream: `kube-openapi/pkg/schemaconv` and `structured-merge-diff/schema`.

use std::sync::LazyLock;

use serde_json::Value;

use super::element::Scalar;
use crate::custom::structural::{self, Structural};
use crate::schema::{Field, Kind, ListType, TypeId, definition, type_of};

/// A place in a schema.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A type of the tables, and the field that has it: list types are said there.
    Typed(TypeId, Option<Field>),
    /// A structural schema.
    Custom(&'a Structural, Flags),
    /// Text.
    Text,
    /// Whatever is there: maps by their keys, lists as one value.
    Deduced,
    /// Whatever is there, as one value.
    Untyped,
}

/// What a structural schema inherits from where it stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Whether it, or a schema around it, keeps unknown fields.
    keeps_unknown: bool,
    /// Whether it describes an object with type and metadata.
    is_object: bool,
}

/// How a value is owned and merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    Scalar(ScalarType),
    /// A list.
    List(Relation),
    /// A struct or a map; as one value if atomic.
    Map {
        /// As one value.
        is_atomic: bool,
    },
}

/// Which scalars fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    /// Numbers.
    Number,
    /// Text.
    Text,
    /// Booleans.
    Bool,
    /// All.
    Any,
}

/// How the items of a list relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// One value.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Told apart by keys.
    Keyed,
}

/// The node of a field, and whether the schema names the field.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The node.
    pub node: Node<'a>,
    /// A field that is named, as opposed to an entry of a map.
    pub is_declared: bool,
    /// Whether upstream's encoder writes the field whenever it writes what holds it: then it is never new.
    pub is_always_there: bool,
}

/// The struct fields that upstream's types hold by value, so that they are there, if empty, in every object that has what is around
/// them.
const HELD_BY_VALUE: [&str; 11] = [
    "daemonEndpoints",
    "kubeletEndpoint",
    "loadBalancer",
    "metadata",
    "nodeInfo",
    "resources",
    "spec",
    "status",
    "strategy",
    "template",
    "updateStrategy",
];

/// Defaults of key fields, beside the zero of those that are required.
const KEY_DEFAULTS: [(&str, &str, &str); 3] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.LocalObjectReference", "name", ""),
];

/// Accepts anything, as one value, though the published document calls it an object.
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

fn object_meta() -> Option<Node<'static>> {
    static META: LazyLock<Option<TypeId>> = LazyLock::new(|| definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    META.map(|ty| Node::typed(ty, None))
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The type of a built-in kind.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Node<'static>> {
        type_of(group, version, kind).map(|ty| Node::typed(ty, None))
    }

    /// The schema of a custom resource.
    pub fn of_custom(schema: &'a Structural) -> Node<'a> {
        Node::Custom(schema, Flags { keeps_unknown: schema.preserves_unknown, is_object: true })
    }

    fn typed(ty: TypeId, field: Option<Field>) -> Node<'static> {
        match ty.kind() {
            Kind::Any => Node::Deduced,
            Kind::AnyObject if ty.name() == RAW => Node::Untyped,
            _ => Node::Typed(ty, field),
        }
    }

    fn inner(schema: &'a Structural, around: Flags) -> Node<'a> {
        let keeps_unknown = around.keeps_unknown || schema.preserves_unknown;
        Node::Custom(schema, Flags { keeps_unknown, is_object: schema.is_embedded })
    }

    /// How a value of this node is owned. Where the schema allows several types, the value decides; for null the schema does.
    pub fn shape(self, value: &Value) -> Shape {
        let any = |is_atomic: bool| match value {
            Value::Array(_) => Shape::List(Relation::Atomic),
            Value::Object(_) | Value::Null => Shape::Map { is_atomic },
            _ => Shape::Scalar(ScalarType::Any),
        };
        match self {
            Node::Text => Shape::Scalar(ScalarType::Text),
            Node::Deduced => any(false),
            Node::Untyped => any(true),
            Node::Typed(ty, field) => typed_shape(ty, field),
            Node::Custom(schema, _) => match schema.type_.as_str() {
                "object" => Shape::Map { is_atomic: schema.is_atomic_map },
                "array" => Shape::List(relation(schema)),
                "string" => Shape::Scalar(ScalarType::Text),
                "integer" | "number" => Shape::Scalar(ScalarType::Number),
                "boolean" => Shape::Scalar(ScalarType::Bool),
                _ => match any(schema.is_atomic_map) {
                    Shape::List(_) => Shape::List(relation(schema)),
                    other => other,
                },
            },
        }
    }

    /// The node of a field or of an entry; None: the schema has none of this name.
    pub fn member(self, name: &str) -> Option<Member<'a>> {
        match self {
            Node::Text => None,
            Node::Deduced => entry(Node::Deduced),
            Node::Untyped => entry(Node::Untyped),
            Node::Typed(ty, _) => match ty.kind() {
                Kind::Map(element) => entry(Node::typed(element, None)),
                Kind::AnyObject => entry(Node::Deduced),
                Kind::Struct if ty.fields().len() == 0 => entry(Node::Deduced),
                _ => ty.field(name).map(|field| Member {
                    node: Node::typed(field.type_id(), Some(field)),
                    is_declared: true,
                    is_always_there: field.is_required() || is_held_by_value(field),
                }),
            },
            Node::Custom(schema, flags) => {
                if flags.is_object {
                    match name {
                        "metadata" => return object_meta().and_then(declared),
                        "apiVersion" | "kind" => return declared(Node::Text),
                        _ => {}
                    }
                }
                if let Some(property) = schema.properties.get(name) {
                    return declared(Node::inner(property, flags));
                }
                match &schema.additional {
                    Some(structural::Additional::Schema(values)) => entry(Node::inner(values, flags)),
                    Some(structural::Additional::Allowed(true)) => entry(Node::Deduced),
                    Some(structural::Additional::Allowed(false)) => None,
                    None if flags.keeps_unknown || (schema.properties.is_empty() && !flags.is_object) => entry(Node::Deduced),
                    None => None,
                }
            }
        }
    }

    /// The node of the items of a list.
    pub fn item(self) -> Node<'a> {
        match self {
            Node::Typed(ty, _) => ty.element().map_or(Node::Untyped, |element| Node::typed(element, None)),
            Node::Custom(schema, flags) => match schema.items.as_deref() {
                Some(items) => Node::inner(items, Flags { is_object: false, ..flags }),
                None => Node::Untyped,
            },
            Node::Text | Node::Deduced | Node::Untyped => Node::Untyped,
        }
    }

    /// The key fields of the items of a list, in the order of the schema.
    pub fn keys(self) -> Vec<&'a str> {
        match self {
            Node::Typed(_, Some(field)) => field.list_map_keys().collect(),
            Node::Custom(schema, _) => schema.list_keys.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The value that an item has in a key field which it leaves out. Asked of the item's node.
    pub fn key_default(self, key: &str) -> Option<Scalar> {
        match self {
            Node::Typed(ty, _) => {
                let fact = KEY_DEFAULTS.iter().find(|(name, field, _)| *name == ty.name() && *field == key);
                if let Some((_, _, value)) = fact {
                    return Some(Scalar::Text((*value).into()));
                }
                let field = ty.field(key).filter(|field| field.is_required())?;
                match field.type_id().kind() {
                    Kind::String => Some(Scalar::Text("".into())),
                    Kind::Int32 | Kind::Int64 => Some(Scalar::Int(0)),
                    Kind::Bool => Some(Scalar::Bool(false)),
                    _ => None,
                }
            }
            Node::Custom(schema, _) => schema.properties.get(key)?.default.as_ref().and_then(Scalar::of),
            _ => None,
        }
    }
}

fn entry(node: Node<'_>) -> Option<Member<'_>> {
    Some(Member { node, is_declared: false, is_always_there: false })
}

fn declared(node: Node<'_>) -> Option<Member<'_>> {
    Some(Member { node, is_declared: true, is_always_there: false })
}

fn is_held_by_value(field: Field) -> bool {
    field.type_id().kind() == Kind::Struct && HELD_BY_VALUE.contains(&field.name())
}

fn typed_shape(ty: TypeId, field: Option<Field>) -> Shape {
    match ty.kind() {
        Kind::Struct | Kind::Map(_) | Kind::AnyObject | Kind::Any => {
            let is_atomic = field.is_some_and(Field::is_atomic_map) || ty.is_atomic() && !field.is_some_and(Field::is_granular_map);
            Shape::Map { is_atomic }
        }
        Kind::List(_) => Shape::List(match field.and_then(Field::list_type) {
            Some(ListType::Map) => Relation::Keyed,
            Some(ListType::Set) => Relation::Set,
            Some(ListType::Atomic) | None => Relation::Atomic,
        }),
        Kind::String | Kind::Bytes => Shape::Scalar(ScalarType::Text),
        Kind::Int32 | Kind::Int64 | Kind::Double => Shape::Scalar(ScalarType::Number),
        Kind::Bool => Shape::Scalar(ScalarType::Bool),
        Kind::IntOrString | Kind::Quantity | Kind::Time | Kind::MicroTime => Shape::Scalar(ScalarType::Any),
    }
}

fn relation(schema: &Structural) -> Relation {
    match schema.list_type {
        structural::ListType::Atomic => Relation::Atomic,
        structural::ListType::Set => Relation::Set,
        structural::ListType::Map => Relation::Keyed,
    }
}
