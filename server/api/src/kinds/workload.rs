//! What workloads share: templates, selectors, rolling updates, counters, table cells.

use serde_json::{Value, json};

use crate::default::{each, object as child, text, unset};
use crate::intstr;
use crate::kinds::core::pod::spec;
use crate::kinds::text::{NONE, containers, selector};
use crate::names;
use crate::resource::Cells;
use crate::validate::{At, metadata};

// === defaults ===

pub(crate) fn template_labels(object: &Value) -> Option<Value> {
    object.pointer("/spec/template/metadata/labels").filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty())).cloned()
}

pub(crate) fn labels_from(object: &mut Value, labels: Value) {
    each(object, "metadata", &mut |meta| {
        if unset(meta, "labels") {
            meta.insert("labels".to_owned(), labels.clone());
        }
    });
}

pub(crate) fn rolling_update(object: &mut Value, path: &str, defaults: &[(&str, Value)]) {
    each(object, path, &mut |strategy| {
        if text(strategy, "type") != "RollingUpdate" {
            return;
        }
        let Some(rolling) = child(strategy, "rollingUpdate") else { return };
        for (key, value) in defaults {
            if rolling.get(*key).is_none_or(Value::is_null) {
                rolling.insert((*key).to_owned(), value.clone());
            }
        }
    });
}

// === validation ===

/// A number that is not negative, or a percentage.
pub(crate) fn int_or_percent(at: &At<'_>) {
    match at.value {
        Value::String(text) if !intstr::is_percentage(text) => at.invalid(names::regex_error(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )),
        Value::Number(_) => at.non_negative(),
        _ => {}
    }
}

pub(crate) fn at_most_all(at: &At<'_>) {
    if let Value::String(text) = at.value
        && intstr::is_percentage(text)
        && intstr::percentage(text).is_ok_and(|percent| percent > 100)
    {
        at.invalid("must not be greater than 100%");
    }
}

/// The value as a number; a percentage counts as its digits.
pub(crate) fn amount(at: &At<'_>) -> i64 {
    match at.value {
        Value::String(text) => intstr::percentage(text).unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}

/// The selector is there, says something and selects the template's labels.
pub(crate) fn selector_matches(spec: &At<'_>, what: &str) {
    let selector = spec.at("selector");
    if selector.is_set() {
        metadata::selector(&selector);
        if metadata::is_empty_selector(&selector) {
            selector.invalid(format!("empty selector is invalid for {what}"));
        }
    } else {
        selector.required("");
    }
}

pub(crate) fn template_matches(spec: &At<'_>) {
    let labels = spec.at("template").at("metadata").at("labels");
    let selector = spec.at("selector");
    let empty = selector.is_set() && metadata::is_empty_selector(&selector);
    if !empty && !metadata::selects(selector.value, &labels) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
}

/// The template of a workload whose pods always restart.
pub(crate) fn always_template(spec: &At<'_>, what: &str) {
    let template = spec.at("template");
    spec::template(&template);
    let policy = template.at("spec").at("restartPolicy");
    if policy.text() != "Always" {
        policy.not_supported(&["Always"]);
    }
    let deadline = template.at("spec").at("activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(format!("activeDeadlineSeconds in {what} is not Supported"));
    }
}

/// Counters in a status are not negative, and parts are not more than the whole.
pub(crate) fn status(object: &At<'_>) {
    let status = object.at("status");
    for (_, counter) in status.entries() {
        if counter.int().is_some_and(|count| count < 0) {
            let name = counter.path.as_str().trim_start_matches("status[").trim_end_matches(']').to_owned();
            status.at(&name).non_negative();
        }
    }
    let replicas = status.at("replicas").int().unwrap_or(0);
    if !status.at("replicas").is_set() {
        return;
    }
    for part in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas", "updatedReplicas"] {
        if status.at(part).int().is_some_and(|count| count > replicas) && part != "updatedReplicas" {
            status.at(part).invalid("cannot be greater than status.replicas");
        }
    }
    let ready = status.at("readyReplicas").int().unwrap_or(0);
    if status.at("availableReplicas").int().is_some_and(|count| count > ready) {
        status.at("availableReplicas").invalid("cannot be greater than readyReplicas");
    }
}

/// The count of collisions only grows: names are made from it.
pub(crate) fn collisions(object: &At<'_>, old: &At<'_>) {
    let count = |object: &At<'_>| object.at("status").at("collisionCount").int();
    let (before, now) = (count(old), count(object));
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        object.at("status").at("collisionCount").invalid_as(now.unwrap_or(0), "cannot be decremented");
    }
}

// === cells ===

/// Containers, Images, Selector.
pub(crate) fn template_cells(cells: &Cells<'_>, row: &mut Vec<Value>) {
    row.extend(containers(cells.list(&["spec", "template", "spec", "containers"])));
    row.push(json!(selector_of(cells.at(&["spec", "selector"]))));
}

/// An absent selector prints as one that selects everything.
pub(crate) fn selector_of(value: &Value) -> String {
    if value.is_null() { NONE.to_owned() } else { selector(value) }
}
