//! The types that the parts of a schema have in expressions.
//!
//! A field without a schema has no type: expressions cannot select fields that are only preserved.
//!
//! Upstream: `SchemaDeclType` in `apiserver/pkg/cel/common/schemas.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::names::escape;
use crate::cel::{Fields, Type};
use crate::custom::structural::Structural;

/// An object with known fields.
#[derive(Debug)]
struct Object {
    /// Where it is: two objects are of one type if they are at one place.
    place: String,
    /// By their identifiers.
    fields: BTreeMap<String, Type>,
}

impl Fields for Object {
    fn name(&self) -> String {
        self.place.clone()
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.fields.get(name).cloned()
    }
}

/// The type of a schema; None: expressions cannot see it. At the `root` of an object its type and its name are always there.
pub fn of(schema: &Structural, root: bool) -> Option<Type> {
    at(schema, root, "self")
}

fn at(schema: &Structural, root: bool, place: &str) -> Option<Type> {
    if schema.is_int_or_string {
        return Some(Type::Dyn);
    }
    let format = schema.limits.as_ref().map_or("", |limits| limits.format.as_str());
    match (schema.type_.as_str(), format) {
        ("array", _) => {
            let items = schema.items.as_deref()?;
            at(items, items.is_embedded, &format!("{place}.@items")).map(Type::list)
        }
        ("object", _) => match schema.values() {
            Some(values) => at(values, values.is_embedded, &format!("{place}.@values")).map(|of| Type::map(Type::String, of)),
            None => Some(object(schema, root, place)),
        },
        ("string", "byte") => Some(Type::Bytes),
        ("string", "duration") => Some(Type::Duration),
        ("string", "date" | "date-time") => Some(Type::Timestamp),
        ("string", _) => Some(Type::String),
        ("boolean", _) => Some(Type::Bool),
        ("number", _) => Some(Type::Double),
        ("integer", _) => Some(Type::Int),
        _ => None,
    }
}

fn object(schema: &Structural, root: bool, place: &str) -> Type {
    let mut fields = BTreeMap::new();
    for (name, property) in &schema.properties {
        let of = at(property, property.is_embedded, &format!("{place}.{name}"));
        if let (Some(identifier), Some(of)) = (escape(name), of) {
            fields.insert(identifier, of);
        }
    }
    if root {
        let named = [("name", Type::String), ("generateName", Type::String)].map(|(name, of)| (name.to_owned(), of));
        let metadata = Object { place: format!("{place}.metadata"), fields: BTreeMap::from(named) };
        fields.insert("apiVersion".to_owned(), Type::String);
        fields.insert("kind".to_owned(), Type::String);
        fields.insert("metadata".to_owned(), Type::Object(Arc::new(metadata)));
    }
    Type::Object(Arc::new(Object { place: place.to_owned(), fields }))
}

/// The type of a field of an object or of the values of a map; of one that expressions cannot name, its own.
pub fn of_field(of: &Type, name: &str, schema: &Structural) -> Option<Type> {
    match of {
        Type::Object(fields) => match escape(name) {
            Some(identifier) => fields.field(&identifier),
            None => self::of(schema, schema.is_embedded),
        },
        Type::Map(_, value) => Some((**value).clone()),
        _ => None,
    }
}

/// The type of the items of a list.
pub fn of_items(of: &Type) -> Option<Type> {
    match of {
        Type::List(element) => Some((**element).clone()),
        _ => None,
    }
}
