//! What differs between resources in the generic pipeline: which fields a writer owns on which path, how generations
//! count, what a PUT may create, how a deletion takes its time, what is worth a warning.
//!
//! Strategies are pure: identity, allocation and time are the pipeline's. It calls them after defaulting, with
//! `metadata.uid` and `metadata.creationTimestamp` already set on a new object (a Job's selector needs its UID).
//! A custom resource brings a strategy of its own. Upstream: `pkg/registry/*/*/strategy.go`.

mod job;
mod pod;
mod service;
mod table;
mod warnings;

use serde_json::Value;

pub use pod::{PodPhase, qos_class};
pub use warnings::deprecation;

use crate::meta;
use table::Row;

/// Who looks after the dependents of a deleted object when the request doesn't say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// The garbage collector deletes them.
    Background,
    /// They lose their owner and stay (Jobs and ReplicationControllers in their first versions).
    Orphan,
}

/// The rules of one resource.
pub trait Strategy: Send + Sync {
    /// Clears what a creator may not set and sets what a new object starts with.
    fn prepare_for_create(&self, object: &mut Value);

    /// Takes back what an update of the main resource may not touch (status), and counts the generation.
    fn prepare_for_update(&self, object: &mut Value, old: &Value);

    /// Takes back everything but the status.
    fn prepare_for_status_update(&self, object: &mut Value, old: &Value);

    /// Rewrites a validated object into the form that is stored.
    fn canonicalize(&self, object: &mut Value);

    /// What to tell the author of a new object.
    fn warnings_on_create(&self, object: &Value) -> Vec<String>;

    /// What to tell the author of a change.
    fn warnings_on_update(&self, object: &Value, old: &Value) -> Vec<String>;

    /// Whether a PUT of a missing name creates it.
    fn allow_create_on_update(&self) -> bool;

    /// Whether an update without a resourceVersion replaces whatever is there.
    fn allow_unconditional_update(&self) -> bool;

    /// For resources that are deleted gracefully: for how many seconds, given what the request asks for. None for all
    /// others, which are deleted at once.
    fn grace_period_secs(&self, object: &Value, requested: Option<i64>) -> Option<i64>;

    /// What happens to dependents by default.
    fn default_dependents(&self) -> Dependents;
}

/// The strategy of a built-in resource. Unknown ones get the plainest: status and generation by the usual convention.
pub fn for_resource(group: &str, plural: &str) -> &'static dyn Strategy {
    static PLAIN: Row = Row::plain();
    table::ROWS.iter().find(|row| row.group == group && row.plural == plural).unwrap_or(&PLAIN)
}

// === impl Strategy for Row ===

impl Strategy for Row {
    fn prepare_for_create(&self, object: &mut Value) {
        if self.has_status && !self.status_on_create {
            remove(object, "status");
        }
        meta::set_generation(object, i64::from(self.generation));
        match (self.group, self.plural) {
            ("", "pods") => pod::prepare_for_create(object),
            ("", "namespaces") => namespace(object),
            ("", "services") => service::prepare_for_create(object),
            ("batch", "jobs") => job::generate_selector(object),
            ("apps", "daemonsets") => template_generation(object, 1),
            ("apiextensions.k8s.io", "customresourcedefinitions") => stored_versions(object),
            _ => {}
        }
        self.complete(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        if self.has_status {
            carry(object, old, "status");
        }
        match (self.group, self.plural) {
            ("", "namespaces") => carry_finalizers(object, old),
            ("certificates.k8s.io", "certificatesigningrequests") => carry(object, old, "spec"),
            ("apps", "daemonsets") => {
                let previous = meta::annotation(old, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(1);
                let changed = !same(object.pointer("/spec/template"), old.pointer("/spec/template"));
                template_generation(object, previous + i64::from(changed));
            }
            ("", "services") => service::prepare_for_update(object, old),
            ("apiextensions.k8s.io", "customresourcedefinitions") => stored_versions(object),
            _ => {}
        }
        if self.generation {
            let bump = self.differs(object, old);
            meta::set_generation(object, meta::generation(old) + i64::from(bump));
        } else {
            meta::set_generation(object, meta::generation(old));
        }
        self.complete(object);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value) {
        let keys: Vec<String> = [&*object, old]
            .iter()
            .filter_map(|value| value.as_object())
            .flat_map(|map| map.keys().cloned())
            .filter(|key| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
            .collect();
        for key in keys {
            carry(object, old, &key);
        }
        meta::set_generation(object, meta::generation(old));
        match (self.group, self.plural) {
            ("", "pods") => {
                carry_metadata(object, old, "ownerReferences");
                pod::prepare_for_status_update(object, old);
            }
            ("apps", "deployments") => carry_metadata(object, old, "labels"),
            _ => {}
        }
        self.complete(object);
    }

    fn canonicalize(&self, _object: &mut Value) {}

    fn warnings_on_create(&self, object: &Value) -> Vec<String> {
        warnings::on_write(self.group, self.plural, object, None)
    }

    fn warnings_on_update(&self, object: &Value, old: &Value) -> Vec<String> {
        warnings::on_write(self.group, self.plural, object, Some(old))
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional_update
    }

    fn grace_period_secs(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        (self.group.is_empty() && self.plural == "pods").then(|| pod::grace_period_secs(object, requested))
    }

    fn default_dependents(&self) -> Dependents {
        match (self.group, self.plural) {
            ("batch", "jobs") | ("", "replicationcontrollers") => Dependents::Orphan,
            _ => Dependents::Background,
        }
    }
}

impl Row {
    /// Puts back the fields that are always written: what was cleared is empty and not absent, as an upstream client
    /// expects it.
    fn complete(&self, object: &mut Value) {
        if let Some(gvk) = meta::gvk(object).filter(|_| !self.plural.is_empty()) {
            crate::default::apply(&gvk, object);
        }
    }

    /// Whether what the author wrote has changed. Metadata doesn't count, except where upstream says so.
    fn differs(&self, object: &Value, old: &Value) -> bool {
        let content = |value: &Value| {
            let mut content = value.clone();
            for key in ["metadata", "status", "apiVersion", "kind"] {
                remove(&mut content, key);
            }
            content
        };
        let metadata = |key: &str| !same(object["metadata"].get(key), old["metadata"].get(key));
        !same(Some(&content(object)), Some(&content(old)))
            || match (self.group, self.plural) {
                ("apps", "deployments") => metadata("annotations"),
                ("discovery.k8s.io", "endpointslices") => metadata("labels"),
                _ => false,
            }
    }
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &mut Value, generation: i64) {
    meta::set_annotation(object, TEMPLATE_GENERATION, &generation.to_string());
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

/// Puts back what is stored.
fn carry(object: &mut Value, old: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => map.insert(key.to_owned(), value.clone()),
        None => map.remove(key),
    };
}

fn carry_metadata(object: &mut Value, old: &Value, key: &str) {
    match old.get("metadata").and_then(|metadata| metadata.get(key)) {
        Some(value) => {
            meta::metadata_mut(object).insert(key.to_owned(), value.clone());
        }
        None => meta::remove(object, key),
    }
}

/// Nothing, an empty list and an empty map are the same.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    crate::validate::same(a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null))
}

/// A namespace lives until this finalizer is taken away, by the controller that empties it.
fn namespace(object: &mut Value) {
    let spec = meta::map_at(object, "spec");
    let finalizers = spec.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if finalizers.is_null() {
        *finalizers = Value::Array(Vec::new());
    }
    if let Value::Array(list) = finalizers
        && !list.iter().any(|name| name == "kubernetes")
    {
        list.push(Value::from("kubernetes"));
    }
}

fn carry_finalizers(object: &mut Value, old: &Value) {
    let finalizers = old.pointer("/spec/finalizers").cloned();
    let spec = meta::map_at(object, "spec");
    match finalizers {
        Some(list) => spec.insert("finalizers".to_owned(), list),
        None => spec.remove("finalizers"),
    };
}

/// Every version that was ever written stays listed until an operator says that no object has it.
fn stored_versions(object: &mut Value) {
    let stored = object["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == Value::Bool(true))
        .and_then(|version| version["name"].as_str())
        .map(str::to_owned);
    let Some(stored) = stored else { return };
    let status = meta::map_at(object, "status");
    let list = status.entry("storedVersions").or_insert(Value::Null);
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    if let Value::Array(names) = list
        && !names.iter().any(|name| *name == stored)
    {
        names.push(Value::from(stored));
    }
}

#[cfg(test)]
mod tests;
