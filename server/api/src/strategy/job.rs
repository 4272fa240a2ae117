//! A Job selects the pods that carry its UID, unless its author chose `manualSelector`.

use serde_json::{Value, json};

use crate::meta;

pub(super) fn generate_selector(job: &mut Value) {
    if meta::get(job, &["spec", "manualSelector"]) == Some(&Value::Bool(true)) {
        return;
    }
    let (uid, name) = (meta::uid(job).to_owned(), meta::name(job).to_owned());
    let Some(template) = job.pointer_mut("/spec/template") else { return };
    for (key, value) in [
        ("job-name", &name),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
    ] {
        // A label that the author set stays: validation reports the disagreement.
        if meta::label(template, key).is_none_or(str::is_empty) {
            meta::set_label(template, key, value);
        }
    }
    let spec = meta::map_at(job, "spec");
    let selector = spec.entry("selector").or_insert(Value::Null);
    if !selector.is_object() {
        *selector = json!({});
    }
    let labels = &mut selector["matchLabels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    let key = "batch.kubernetes.io/controller-uid";
    if labels.get(key).is_none() {
        labels[key] = json!(uid);
    }
}
