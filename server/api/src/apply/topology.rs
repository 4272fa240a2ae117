//! The topology of a schema, as server-side apply sees it: whether a list or map is atomic or merged (`listType`, `mapType`,
//! `structType` of the OpenAPI extensions), and which keys identify the items of a list (`listMapKeys`).
//!
//! Owns the one interface ([`Node`]) to two sources: the generated tables of built-in kinds, and the structural schemas of custom
//! resources. Fields that no schema describes are deduced from their values, as upstream's deduced type does it. It compares and
//! merges nothing. Follows upstream's `kube-openapi/pkg/schemaconv` and `structured-merge-diff/schema`.
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy>

use std::sync::LazyLock;

use serde_json::Value;

use super::element::Scalar;
use crate::custom::structural::{self, Structural};
use crate::schema::{Field, Kind, ListType, TypeId, definition, type_of};

/// The schema of one field, item or entry.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A type of the generated tables, and the field that has this type: the field, not the type, states the list type and its keys.
    Typed(TypeId, Option<Field>),
    /// A structural schema.
    Custom(&'a Structural, Flags),
    /// A string.
    Text,
    /// Any value, without a schema: maps are granular, lists are atomic.
    Deduced,
    /// Any value, without a schema: atomic as a whole.
    Untyped,
}

/// The properties of a structural schema that depend on its position in the schema around it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// Whether it, or a schema around it, sets `x-kubernetes-preserve-unknown-fields`.
    keeps_unknown: bool,
    /// Whether it describes an object with `apiVersion`, `kind` and `metadata`: the root, or an `x-kubernetes-embedded-resource`.
    is_object: bool,
}

/// The type of a value as far as it decides how the value is owned and merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A scalar.
    Scalar(ScalarType),
    /// A list.
    List(Relation),
    /// A struct or a map.
    Map {
        /// Whether it is owned and replaced as a whole (`atomic`), or member by member (`granular`).
        is_atomic: bool,
    },
}

/// The scalars that a schema accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    /// Numbers.
    Number,
    /// Strings.
    Text,
    /// Booleans.
    Bool,
    /// Any scalar.
    Any,
}

/// The list type, upstream's `elementRelationship`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `atomic`: the list is owned and replaced as a whole.
    Atomic,
    /// `set`: the items are scalars, each identified by its value.
    Set,
    /// `map`: the items are identified by their key fields.
    Keyed,
}

/// The schema of a member of a struct or map.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its schema.
    pub node: Node<'a>,
    /// Whether the schema names it as a field; false for an entry of a map.
    pub is_declared: bool,
    /// Whether upstream's encoder writes the field whenever it writes its parent, even if it is empty. Setting such a field on an
    /// existing parent modifies it and does not add it.
    pub is_always_there: bool,
}

/// The struct fields that upstream's Go types hold by value, not by pointer: the encoder writes them as `{}` wherever their parent is
/// present.
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

/// Defaults of list keys: type, field, default. A required key without an entry here defaults to the zero value of its type.
const KEY_DEFAULTS: [(&str, &str, &str); 3] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.LocalObjectReference", "name", ""),
];

/// This type accepts any value and is atomic, although the published OpenAPI document declares it an object.
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

fn object_meta() -> Option<Node<'static>> {
    static META: LazyLock<Option<TypeId>> = LazyLock::new(|| definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"));
    META.map(|ty| Node::typed(ty, None))
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The schema of a built-in kind; None if the tables have no such kind.
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

    /// The shape of `value` under this schema. The value matters only where the schema does not fix a type; there, null counts as a map.
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

    /// The schema of the field or entry `name`; None if the schema allows no such member.
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

    /// The schema of the items of a list.
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

    /// The key fields of a list (`listMapKeys`), in the order of the schema.
    pub fn keys(self) -> Vec<&'a str> {
        match self {
            Node::Typed(_, Some(field)) => field.list_map_keys().collect(),
            Node::Custom(schema, _) => schema.list_keys.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The default of the key field `key`, for an item that omits it. `self` is the schema of the item, not of the list.
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
