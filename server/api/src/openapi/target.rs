//! Where operations find schemas: in the tables, or beside them under a name of their own; and what a document uses of both.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::schemas;
use crate::schema::TypeId;

/// The schema of a body or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A type of the tables.
    Type(TypeId),
    /// A schema that was given at run time.
    Named(String),
}

/// The schemas that a document has to hold.
#[derive(Default)]
pub(super) struct Used {
    /// Types of the tables.
    pub(super) types: BTreeSet<TypeId>,
    /// Schemas that were given at run time, by name.
    pub(super) named: BTreeMap<String, Value>,
}

impl Target {
    /// A reference to it.
    pub(super) fn reference(&self, dialect: Dialect) -> Value {
        match self {
            Target::Type(ty) => Value::Object(schemas::reference(*ty, dialect)),
            Target::Named(name) => Value::Object(Map::from_iter([("$ref".to_owned(), Value::from(dialect.reference(name)))])),
        }
    }
}

impl Used {
    pub(super) fn add(&mut self, target: &Target) {
        if let Target::Type(ty) = target {
            self.types.insert(*ty);
        }
    }

    /// All definitions by name, with what they refer to.
    pub(super) fn definitions(self, dialect: Dialect) -> impl Iterator<Item = (String, Value)> {
        let types = schemas::closure(self.types);
        types.into_iter().map(move |ty| (ty.name().to_owned(), schemas::schema(ty, dialect))).chain(self.named)
    }
}
