//! CustomResourceDefinitions. Upstream: `apiextensions-apiserver/pkg/registry/customresourcedefinition`.

mod formats;
mod rules;

use serde_json::{Value, json};

use crate::custom::define;
use crate::default::{Lit::*, Set, each, fill, text, unset};
use crate::meta;
use crate::resource::{Cells, Column, Defined, Definer, Identity, Kind};
use crate::time::Timestamp;
use crate::validate::At;

/// Keeps a definition until its instances are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const CRD: &[Set] = &[
    Set("", "status", Obj),
    Set("status", "conditions", Null),
    Set("status", "acceptedNames", Obj),
    Set("status.acceptedNames", "plural", Empty),
    Set("status.acceptedNames", "kind", Empty),
    Set("status", "storedVersions", Null),
    Set("spec", "conversion", Obj),
    Set("spec.conversion", "strategy", S("None")),
    Set("spec.conversion.webhook.clientConfig.service", "port", I(443)),
];

/// A resource that users define.
pub(crate) struct CustomResourceDefinition;

impl Kind for CustomResourceDefinition {
    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, CRD);
        each(object, "spec.names", &mut |names| {
            let kind = text(names, "kind").to_owned();
            if unset(names, "singular") {
                names.insert("singular".to_owned(), json!(kind.to_lowercase()));
            }
            if unset(names, "listKind") && !kind.is_empty() {
                names.insert("listKind".to_owned(), json!(format!("{kind}List")));
            }
        });
    }

    fn prepare_for_create(&self, object: &mut Value, _now: Timestamp) {
        stored_versions(object);
    }

    fn prepare_for_update(&self, object: &mut Value, _old: &Value) {
        stored_versions(object);
    }

    fn validate(&self, object: &At<'_>) {
        rules::check(object, None);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        rules::check(object, Some(old));
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        rules::check_status(object);
    }

    fn evaluates(&self) -> bool {
        // The rules of schemas are compiled.
        true
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(formats::unknown).unwrap_or_default();
        formats::unknown(object).difference(&before).map(|format| format!("unrecognized format {}", crate::field::quote(format))).collect()
    }

    fn is_held(&self, object: &Value) -> bool {
        // The first request marks it, whatever finalizers it has: its instances go first.
        meta::deletion_timestamp(object).is_none()
    }

    fn mark_deleted(&self, object: &mut Value, old: &Value) {
        if meta::deletion_timestamp(old).is_some() {
            return;
        }
        let mut finalizers: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
        if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
            finalizers.push(CLEANUP_FINALIZER.to_owned());
        }
        meta::set_finalizers(object, &finalizers.iter().map(String::as_str).collect::<Vec<_>>());
        let since = meta::deletion_timestamp(object).unwrap_or_default().to_owned();
        let condition = json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending", "lastTransitionTime": since,
            "message": "the definition is being deleted; deletion of its instances is about to begin",
        });
        let conditions = meta::map_at(object, "status").entry("conditions").or_insert(Value::Null);
        match conditions {
            Value::Array(list) => {
                list.retain(|condition| condition["type"] != "Terminating");
                list.push(condition);
            }
            other => *other = json!([condition]),
        }
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Created At:d")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), cells.created_at()]
    }
}

impl Definer for CustomResourceDefinition {
    fn identity(&self, object: &Value) -> Identity {
        define::identity(object)
    }

    fn define(&self, object: &Value) -> Result<Defined, String> {
        define::define(object)
    }
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
