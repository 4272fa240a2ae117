//! ObjectMeta: names, labels, annotations, owners, finalizers, and what an update may not touch.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use super::at::At;
use crate::apply::{MANAGER_MAX_BYTES, unprintable};
use crate::names;

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
const SUBRESOURCE_MAX_BYTES: usize = 256;

/// The rule that a kind's names follow.
pub type NameRule = fn(&str) -> Vec<String>;

/// `metadata` of a new object; its name is already generated.
pub(crate) fn create(meta: &At<'_>, namespaced: bool, rule: NameRule, bare_finalizers: bool) {
    let generate = meta.at("generateName");
    if generate.is_full() {
        // What follows is appended, so a trailing dash is fine here.
        let text = generate.text();
        let probe = text.strip_suffix('-').map_or_else(|| text.to_owned(), |stem| format!("{stem}a"));
        for message in rule(&probe) {
            generate.invalid(message);
        }
    }
    let name = meta.at("name");
    if name.text().is_empty() {
        name.required("name or generateName is required");
    } else {
        name.obeys(rule);
    }
    namespace(meta, namespaced);
    meta.at("generation").non_negative();
    common(meta, bare_finalizers);
}

fn namespace(meta: &At<'_>, namespaced: bool) {
    let namespace = meta.at("namespace");
    if namespaced {
        namespace.must_obey(names::is_dns1123_label);
    } else if namespace.is_full() {
        namespace.forbidden("not allowed on this type");
    }
}

fn common(meta: &At<'_>, bare_finalizers: bool) {
    labels(&meta.at("labels"));
    annotations(&meta.at("annotations"));
    owners(&meta.at("ownerReferences"));
    managers(&meta.at("managedFields"));
    let all = meta.at("finalizers");
    finalizers(&all);
    if !bare_finalizers {
        all.items().for_each(|name| standard_finalizer(&name));
    }
}

/// Who manages which field.
fn managers(list: &At<'_>) {
    for entry in list.items() {
        let (operation, fields_type) = (entry.at("operation"), entry.at("fieldsType"));
        if !matches!(operation.text(), "Apply" | "Update") {
            operation.invalid("must be `Apply` or `Update`");
        }
        if !matches!(fields_type.text(), "" | "FieldsV1") {
            fields_type.invalid("must be `FieldsV1`");
        }
        let (manager, subresource) = (entry.at("manager"), entry.at("subresource"));
        if manager.text().len() > MANAGER_MAX_BYTES {
            manager.too_long(MANAGER_MAX_BYTES);
        }
        if let Some((position, c)) = unprintable(manager.text()) {
            manager.invalid(format!("invalid character U+{:04X} (at position {position})", u32::from(c)));
        }
        if subresource.text().len() > SUBRESOURCE_MAX_BYTES {
            subresource.too_long(SUBRESOURCE_MAX_BYTES);
        }
    }
}

/// Labels, wherever they are written: keys are qualified names, values label values. The path names the map.
pub(crate) fn labels(labels: &At<'_>) {
    for (key, value) in labels.entries() {
        let whole = value.named(labels.path.clone());
        for message in names::is_qualified_name(key) {
            whole.invalid_as(key, message);
        }
        for message in names::is_label_value(value.text()) {
            whole.invalid_as(value.text(), message);
        }
    }
}

/// Annotations: keys are qualified names in any case, and all together are small.
pub(crate) fn annotations(annotations: &At<'_>) {
    let mut bytes = 0;
    for (key, value) in annotations.entries() {
        for message in names::is_qualified_name(&key.to_lowercase()) {
            annotations.invalid_as(key, message);
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        annotations.too_long(ANNOTATIONS_MAX_BYTES);
    }
}

fn owners(owners: &At<'_>) {
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        let field = |key: &str| owner.at(key).named(owners.path.child(key));
        let version = owner.at("apiVersion").text();
        if version.is_empty() || version.ends_with('/') {
            field("apiVersion").invalid("version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if owner.at(key).text().is_empty() {
                field(key).invalid("must not be empty");
            }
        }
        if version == "v1" && owner.at("kind").text() == "Event" {
            owners.invalid_as(owner.value.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.at("controller").flag() {
            let this = format!("{}/{}", owner.at("kind").text(), owner.at("name").text());
            match &controller {
                Some(first) => owners.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                )),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(finalizers: &At<'_>) {
    for finalizer in finalizers.items() {
        finalizer.named(finalizers.path.clone()).obeys(names::is_qualified_name);
    }
    let all = finalizers.strings();
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// A finalizer without a domain has one of Kubernetes' own names. Upstream: `validateKubeFinalizerName`.
pub(crate) fn standard_finalizer(name: &At<'_>) {
    if !name.text().contains('/') && !matches!(name.text(), "kubernetes" | "orphan" | "foregroundDeletion") {
        name.invalid("name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// `metadata` of a changed object against what is stored.
pub(crate) fn update(meta: &At<'_>, old: &At<'_>, bare_finalizers: bool) {
    if old.at("deletionTimestamp").is_set() {
        let before = old.at("finalizers").strings();
        let mut extra: Vec<&str> = meta.at("finalizers").strings().into_iter().filter(|name| !before.contains(name)).collect();
        extra.sort_unstable();
        if !extra.is_empty() {
            meta.at("finalizers").forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                extra.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            ));
        }
    }
    if meta.at("resourceVersion").text().is_empty() {
        meta.at("resourceVersion").invalid("must be specified for an update");
    }
    let (new_generation, old_generation) = (meta.at("generation").int(), old.at("generation").int());
    if new_generation.unwrap_or(0) < old_generation.unwrap_or(0) {
        meta.at("generation").invalid_as(new_generation.unwrap_or(0), "must not be decremented");
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.at(key).immutable(&old.at(key));
    }
    common(meta, bare_finalizers);
}

/// The selector of a workload, budget or policy. Upstream: `metav1/validation.ValidateLabelSelector`.
pub(crate) fn selector(selector: &At<'_>) {
    labels(&selector.at("matchLabels"));
    for term in selector.at("matchExpressions").items() {
        let values = term.at("values");
        match term.at("operator").text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => term.at("operator").invalid("not a valid selector operator"),
        }
        label_name(&term.at("key"));
        for value in values.items() {
            value.obeys(names::is_label_value);
        }
    }
}

/// A label's key by itself.
pub(crate) fn label_name(key: &At<'_>) {
    key.obeys(names::is_qualified_name);
}

/// True when the label selector selects the labels.
pub(crate) fn selects(selector: &serde_json::Value, labels: &At<'_>) -> bool {
    let Ok(selector) = crate::selector::LabelSelector::from_object(selector) else { return false };
    selector.matches(labels.map())
}

/// True for a selector without any term.
pub(crate) fn is_empty_selector(selector: &At<'_>) -> bool {
    selector.at("matchLabels").is_empty() && selector.at("matchExpressions").is_empty()
}
