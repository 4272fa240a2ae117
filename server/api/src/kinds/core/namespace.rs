//! Namespaces. Upstream: `pkg/registry/core/namespace`.

use serde_json::{Value, json};

use crate::apply::Untracked;
use crate::default::{Lit::*, Set, each, fill, object as child, text};
use crate::field::FieldPath;
use crate::meta;
use crate::names;
use crate::resource::{Cells, Column, Kind, SelectableField, carry};
use crate::time::Timestamp;
use crate::validate::{At, NameRule, metadata};

/// A scope of names.
pub(crate) struct Namespace;

impl Kind for Namespace {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_dns1123_label
    }

    fn default(&self, _version: &str, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _now: Timestamp) {
        finalizer(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value) {
        carry_finalizers(object, old);
    }

    /// `finalize` changes `spec.finalizers`; a namespace has nothing else in its spec.
    fn prepare_for_subresource(&self, _subresource: &str, object: &mut Value, old: &Value, _now: Timestamp) {
        carry(object, old, "status");
    }

    fn untracked(&self, subresource: &str) -> Untracked {
        Untracked::Only(if subresource == "status" { &["spec"] } else { &["status"] })
    }

    fn validate_create(&self, object: &At<'_>) {
        let finalizers = object.at("spec").at("finalizers");
        finalizers.items().for_each(|finalizer| finalizer_name(&finalizer.named(finalizers.path.clone())));
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        status(object);
    }

    fn validate_subresource(&self, _subresource: &str, object: &At<'_>, _old: &At<'_>) {
        object.at("spec").at("finalizers").items().for_each(|finalizer| finalizer_name(&finalizer));
    }

    /// A namespace lives until the controller that empties it has taken its last finalizer away.
    fn is_held(&self, object: &Value) -> bool {
        !meta::list_at(object, &["spec", "finalizers"]).is_empty()
    }

    fn mark_deleted(&self, object: &mut Value, old: &Value) {
        if self.is_held(old) {
            meta::map_at(object, "status").insert("phase".to_owned(), "Terminating".into());
            // Namespaces carry no grace period.
            meta::set_deletion_grace_period_seconds(object, meta::deletion_grace_period_seconds(old));
        }
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Status|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(cells.text(&["status", "phase"])), cells.age()]
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("name").at(&["metadata.name"]), SelectableField::new("status.phase")]
    }
}

fn default(object: &mut Value) {
    fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("status", "phase", S("Active"))]);
    each(object, "metadata", &mut |meta| {
        let name = text(meta, "name").to_owned();
        if !name.is_empty()
            && let Some(labels) = child(meta, "labels")
        {
            labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
    });
}

/// A namespace lives until this finalizer is taken away, by the controller that empties it.
fn finalizer(object: &mut Value) {
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

fn finalizer_name(name: &At<'_>) {
    name.obeys(names::is_qualified_name);
    metadata::standard_finalizer(name);
}

fn status(object: &At<'_>) {
    let phase = object.at("status").at("phase").named(FieldPath::new("status.Phase"));
    if object.at("metadata").at("deletionTimestamp").is_set() {
        if phase.text() != "Terminating" {
            phase.invalid_as(phase.text(), "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
    } else if phase.text() != "Active" {
        phase.invalid_as(phase.text(), "may only be 'Active' if `deletionTimestamp` is empty");
    }
}
