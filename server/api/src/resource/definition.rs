//! A resource as the API server serves and stores it: names and versions, schema, and the rules of its kind.
//!
//! Built-in resources and those that are made at run time have the same definition; nothing in it has to be static.
//! Owns what every kind has in common: metadata, generation, status, and which part of an object a write may touch.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cells::{Cells, RowCondition};
use super::column::Column;
use super::kind::Kind;
use super::schema::Schema;
use super::selectable::SelectableField;
use super::subresource::{carry, remove};
use crate::default::{Lit, Set, fill};
use crate::field::FieldErrors;
use crate::gvk::{GroupVersionKind, Name};
use crate::meta;
use crate::resources::Resource;
use crate::time::Timestamp;
use crate::validate::{At, Errors, metadata, same};

/// A resource and all that is known about it.
#[derive(Clone)]
pub struct Definition {
    /// Names, scope, verbs, versions and storage.
    pub resource: Arc<Resource>,
    /// What is special about it.
    pub kind: Arc<dyn Kind>,
    /// The types of its versions.
    pub schema: Schema,
    /// The columns of its tables.
    pub columns: Vec<Column>,
    /// The fields that can be selected by.
    pub fields: Vec<SelectableField>,
    /// The definitions of single versions, where versions differ in more than their types.
    pub versions: Vec<(Name, Arc<Definition>)>,
    /// Makes resources of its objects.
    pub definer: Option<Arc<dyn Definer>>,
    /// The schema for readers, where the tables have none.
    pub published: Option<Published>,
    /// The status of an object that has none, where the encoder always writes one.
    empty_status: Option<Value>,
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Definition").field("resource", &self.resource).finish_non_exhaustive()
    }
}

impl Definition {
    /// Joins a resource, its schema and its kind.
    pub fn new(resource: Arc<Resource>, schema: Schema, kind: Arc<dyn Kind>) -> Definition {
        let mut fields = vec![SelectableField::new("metadata.name")];
        if resource.namespaced {
            fields.push(SelectableField::new("metadata.namespace"));
        }
        fields.extend(kind.selectable_fields());
        let mut empty = json!({});
        kind.default(&resource.storage.version, &mut empty);
        let empty_status = empty.get_mut("status").map(Value::take);
        Definition {
            columns: kind.columns(),
            fields,
            resource,
            kind,
            schema,
            versions: Vec::new(),
            definer: None,
            published: None,
            empty_status,
        }
    }

    /// What is known of one version, where versions differ in more than their types.
    pub fn in_version(&self, version: &str) -> Option<&Arc<Definition>> {
        self.versions.iter().find(|(name, _)| name == version).map(|(_, definition)| definition)
    }

    /// The selectable field of a name.
    pub fn field(&self, name: &str) -> Option<&SelectableField> {
        self.fields.iter().find(|field| field.name == name)
    }

    // === writing ===

    /// Fills in the defaults of the storage version. Once is enough, and once more after admission has changed the object.
    pub fn default(&self, object: &mut Value) {
        fill(object, &[Set("", "metadata", Lit::Obj)]);
        self.kind.default(&self.resource.storage.version, object);
    }

    /// Clears what a creator may not set and sets what a new object starts with.
    pub fn prepare_for_create(&self, object: &mut Value, now: Timestamp) {
        if self.kind.has_status() && !self.kind.status_on_create() {
            self.reset_status(object);
        }
        meta::set_generation(object, i64::from(self.kind.counts_generation()));
        self.kind.prepare_for_create(object, now);
    }

    /// Puts back the status, and what else an update of the main resource may not change; counts the generation.
    pub fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        if self.kind.has_status() {
            carry(object, old, "status");
        }
        self.kind.prepare_for_update(object, old);
        let changed = self.kind.counts_generation() && self.differs(object, old);
        meta::set_generation(object, meta::generation(old) + i64::from(changed));
    }

    /// Puts back everything that `subresource` does not own.
    pub fn prepare_for_subresource(&self, subresource: &str, object: &mut Value, old: &Value, now: Timestamp) {
        meta::set_generation(object, meta::generation(old));
        if subresource != "status" {
            return self.kind.prepare_for_subresource(subresource, object, old, now);
        }
        let keys: Vec<String> = [&*object, old]
            .iter()
            .filter_map(|value| value.as_object())
            .flat_map(|map| map.keys().cloned())
            .filter(|key| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
            .collect();
        for key in keys {
            carry(object, old, &key);
        }
        self.kind.prepare_for_status_update(object, old, now);
    }

    fn reset_status(&self, object: &mut Value) {
        match (&self.empty_status, object.as_object_mut()) {
            (Some(status), Some(map)) => {
                map.insert("status".to_owned(), status.clone());
            }
            _ => remove(object, "status"),
        }
    }

    /// Whether what the author wrote has changed. Metadata does not count, except where the kind says so.
    fn differs(&self, object: &Value, old: &Value) -> bool {
        let (Some(new), Some(before)) = (object.as_object(), old.as_object()) else { return object != old };
        let has_status = self.kind.has_status();
        let content = |key: &str| !(matches!(key, "metadata" | "apiVersion" | "kind") || (has_status && key == "status"));
        let same = |a: Option<&Value>, b: Option<&Value>| same(a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null));
        new.keys().chain(before.keys()).any(|key| content(key) && !same(new.get(key), before.get(key)))
            || self.kind.generation_metadata().iter().any(|key| !same(object["metadata"].get(key), old["metadata"].get(key)))
    }

    /// Checks a new object. Its name is generated, its namespace and UID are set.
    pub fn validate_create(&self, object: &Value) -> FieldErrors {
        self.judge_create(object).take()
    }

    /// As [`Definition::validate_create`], with warnings.
    pub fn judge_create(&self, object: &Value) -> Errors {
        let errors = Errors::default();
        let at = At::root(object, &errors);
        metadata::create(&at.at("metadata"), self.resource.namespaced, self.kind.name_rule(), self.kind.accepts_bare_finalizers());
        self.kind.validate_create(&at);
        errors
    }

    /// Checks a changed object against what is stored. Both are defaulted and prepared.
    pub fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors {
        self.judge_update("", object, old).take()
    }

    /// Checks an update of a subresource that carries the whole object.
    pub fn validate_subresource(&self, subresource: &str, object: &Value, old: &Value) -> FieldErrors {
        self.judge_update(subresource, object, old).take()
    }

    /// Checks an update of the object itself (no subresource), or of a subresource that carries it, with warnings.
    pub fn judge_update(&self, subresource: &str, object: &Value, old: &Value) -> Errors {
        self.checked(object, old, |at, before| match subresource {
            "" => self.kind.validate_update(at, before),
            "status" => self.kind.validate_status(at, before),
            other => self.kind.validate_subresource(other, at, before),
        })
    }

    fn checked(&self, object: &Value, old: &Value, check: impl Fn(&At<'_>, &At<'_>)) -> Errors {
        let errors = Errors::default();
        let at = At::root(object, &errors);
        let before = At::root(old, &errors);
        metadata::update(&at.at("metadata"), &before.at("metadata"), self.kind.accepts_bare_finalizers());
        check(&at, &before);
        errors
    }

    /// The warning for a new object of a kind that nothing acts upon yet.
    pub fn missing_actor_warning(&self) -> Option<String> {
        self.kind.missing_actor().map(|actor| {
            let plural = &self.resource.plural;
            format!("{plural} are stored, but this release of trireme has no {actor} yet: nothing will act on this object")
        })
    }

    /// Converts an object between two served or stored kinds.
    pub fn convert(&self, object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, String> {
        let mut object = if from == to { object } else { self.kind.convert(object, from, to)? };
        meta::set_gvk(&mut object, to);
        Ok(object)
    }

    // === reading ===

    /// The cells of one object, one for each column, at the time `now`.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        self.kind.cells(&Cells { object, now })
    }

    /// What a table row says about its object beside its cells.
    pub fn row_conditions(&self, object: &Value) -> Vec<RowCondition> {
        self.kind.row_conditions(object)
    }
}

/// A schema as it is published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The schema as JSON text. It is kept as text because only the published documents read it.
    pub schema: bytes::Bytes,
    /// Changes when the schema does.
    pub digest: [u8; 32],
}

/// Makes resources of the objects of a kind.
pub trait Definer: Send + Sync {
    /// Which resource an object defines.
    fn identity(&self, object: &Value) -> Identity;

    /// The definitions of the resource. An error says why there can be none.
    fn define(&self, object: &Value) -> Result<Defined, String>;
}

/// The resource that an object defines, without its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its group.
    pub group: String,
    /// Its plural name.
    pub plural: String,
    /// Changes when its definition does; None where it is not to be served.
    pub digest: Option<[u8; 32]>,
    /// Whether it takes no more objects: it is about to go.
    pub is_closing: bool,
}

/// All views of a resource that is defined by an object.
pub type Defined = Vec<Arc<Definition>>;
