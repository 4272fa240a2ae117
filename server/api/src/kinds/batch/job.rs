//! Jobs. Upstream: `pkg/registry/batch/job/strategy.go`.

use serde_json::{Value, json};

use super::job_spec::job_spec;
use crate::default::{Lit::*, Object, Set, each, fill, set};
use crate::kinds::core::pod;
use crate::kinds::text::condition;
use crate::kinds::workload::{self, labels_from, template_cells, template_labels};
use crate::meta;
use crate::resource::{Cells, Column, Dependents, Kind, SelectableField};
use crate::time::Timestamp;
use crate::validate::{At, metadata, same};

const JOB: &[Set] = &[
    Set("spec", "completionMode", S("NonIndexed")),
    Set("spec", "suspend", B(false)),
    Set("spec.podFailurePolicy.rules[].onPodConditions[]", "status", S("True")),
];

/// Pods that run to their end.
pub(crate) struct Job;

impl Kind for Job {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "successPolicy; consistency of the status; managedBy"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "template", Obj), Set("", "status", Obj)]);
        pod::default::template(object, "spec.template");
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _now: Timestamp) {
        generate_selector(object);
        if let Some(labels) = template_labels(object) {
            labels_from(object, labels);
        }
    }

    fn validate(&self, object: &At<'_>) {
        job(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        job_update(object, old);
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        workload::status(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            pod::warnings::host_name(object, &mut warnings);
        }
        warnings.extend(pod::warnings::template(object, old, "spec.template"));
        warnings
    }

    fn dependents(&self) -> Dependents {
        Dependents::Orphan
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Status|Completions|Duration|Age|+Containers|+Images|+Selector")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name(), json!(job_status(cells)), json!(completions(cells)), json!(duration(cells)), cells.age()];
        template_cells(cells, &mut row);
        row
    }

    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("status.successful").at(&["status.succeeded"]).or("0")]
    }
}

fn default(object: &mut Value) {
    each(object, "spec", &mut |spec| {
        let given = |spec: &Object, key: &str| spec.get(key).is_some_and(|value| !value.is_null());
        // Completions alone stay unset when parallelism is given: that is a work queue.
        if !given(spec, "completions") && !given(spec, "parallelism") {
            set(spec, "completions", I(1));
        }
        set(spec, "parallelism", I(1));
        let limit = if given(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        set(spec, "backoffLimit", I(limit));
        let replacement = if given(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set(spec, "podReplacementPolicy", S(replacement));
    });
    fill(object, JOB);
    if let Some(labels) = template_labels(object) {
        labels_from(object, labels);
    }
}

/// A Job selects the pods that carry its UID, unless its author chose `manualSelector`.
fn generate_selector(job: &mut Value) {
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

fn job(object: &At<'_>) {
    generated_selector(object);
    let spec = object.at("spec");
    job_spec(&spec);
    let selector = spec.at("selector");
    if selector.is_set() {
        metadata::selector(&selector);
    } else {
        selector.required("");
    }
    let labels = spec.at("template").at("metadata").at("labels");
    if !metadata::selects(selector.value, &labels) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
}

/// A Job selects its pods by its own UID, unless its author takes that over.
fn generated_selector(object: &At<'_>) {
    let spec = object.at("spec");
    if spec.at("manualSelector").flag() || !spec.at("selector").is_set() {
        return;
    }
    let meta = object.at("metadata");
    let uid = meta.at("uid").text();
    if uid.is_empty() {
        meta.at("uid").required("");
    }
    let labels = spec.at("template").at("metadata").at("labels");
    let wanted = [("batch.kubernetes.io/controller-uid", uid), ("batch.kubernetes.io/job-name", meta.at("name").text())];
    for (key, value) in wanted {
        let found = labels.at(key).named(labels.path.key(key));
        if !found.is_set() {
            found.required(&format!("must be '{value}'"));
        } else if found.text() != value {
            found.invalid_as(labels.value.clone(), format!("must be '{value}'"));
        }
    }
    let generated = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let legacy = json!({"matchLabels": {"controller-uid": uid}});
    let selector = spec.at("selector");
    if !same(selector.value, &generated) && !same(selector.value, &legacy) {
        selector.invalid("`selector` not auto-generated");
    }
}

/// What a Job is does not change while it runs.
fn job_update(object: &At<'_>, old: &At<'_>) {
    let (spec, before) = (object.at("spec"), old.at("spec"));
    job_spec(&spec);
    spec.at("selector").immutable(&before.at("selector"));
    let elastic = spec.at("completionMode").text() == "Indexed"
        && spec.at("completions").value == spec.at("parallelism").value
        && before.at("completions").value == before.at("parallelism").value;
    if !elastic {
        spec.at("completions").immutable(&before.at("completions"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.at(field).immutable(&before.at(field));
    }
    // A suspended Job that never started may still be told where to run.
    let never_started = before.at("suspend").flag() && !old.at("status").at("startTime").is_set();
    let template = spec.at("template");
    if never_started {
        let strip = |template: &Value| {
            let mut template = template.clone();
            for path in [
                "/metadata/labels",
                "/metadata/annotations",
                "/spec/nodeSelector",
                "/spec/affinity",
                "/spec/tolerations",
                "/spec/schedulingGates",
            ] {
                if let Some(value) = template.pointer_mut(path) {
                    *value = Value::Null;
                }
            }
            template
        };
        if !same(&strip(template.value), &strip(before.at("template").value)) {
            template.invalid("field is immutable");
        }
    } else {
        template.immutable(&before.at("template"));
    }
}

fn job_status(cells: &Cells<'_>) -> &'static str {
    let is = |kind: &str| condition(cells.object, kind).is_some_and(|condition| condition["status"] == "True");
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(cells.object).is_some() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(cells: &Cells<'_>) -> String {
    let done = cells.int(&["status", "succeeded"]);
    match cells.at(&["spec", "completions"]).as_i64() {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match cells.int(&["spec", "parallelism"]) {
            parallel if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

fn duration(cells: &Cells<'_>) -> String {
    let start = cells.text(&["status", "startTime"]);
    let end = crate::time::parse(cells.text(&["status", "completionTime"])).unwrap_or(cells.now);
    if start.is_empty() { String::new() } else { crate::time::age(start, end) }
}
