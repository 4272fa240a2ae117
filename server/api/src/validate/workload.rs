//! Workloads: apps, ReplicationController, and what they share (templates, selectors, strategies).

use serde_json::Value;

use super::at::{At, same};
use super::{metadata, pod};
use crate::intstr;
use crate::names;

/// A number that is not negative, or a percentage.
pub(super) fn int_or_percent(at: &At<'_>) {
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

pub(super) fn at_most_all(at: &At<'_>) {
    if let Value::String(text) = at.value
        && intstr::is_percentage(text)
        && intstr::percentage(text).is_ok_and(|percent| percent > 100)
    {
        at.invalid("must not be greater than 100%");
    }
}

/// The value as a number; a percentage counts as its digits.
fn amount(at: &At<'_>) -> i64 {
    match at.value {
        Value::String(text) => intstr::percentage(text).unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}

/// The selector is there, says something and selects the template's labels.
fn selector_matches(spec: &At<'_>, what: &str) {
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

fn template_matches(spec: &At<'_>) {
    let labels = spec.at("template").at("metadata").at("labels");
    let selector = spec.at("selector");
    let empty = selector.is_set() && metadata::is_empty_selector(&selector);
    if !empty && !metadata::selects(selector.value, &labels) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
}

/// The template of a workload whose pods always restart.
fn always_template(spec: &At<'_>, what: &str) {
    let template = spec.at("template");
    pod::template(&template);
    let policy = template.at("spec").at("restartPolicy");
    if policy.text() != "Always" {
        policy.not_supported(&["Always"]);
    }
    let deadline = template.at("spec").at("activeDeadlineSeconds");
    if deadline.is_set() {
        deadline.forbidden(format!("activeDeadlineSeconds in {what} is not Supported"));
    }
}

pub(super) fn deployment(object: &At<'_>) {
    let spec = object.at("spec");
    spec.at("replicas").non_negative();
    selector_matches(&spec, "deployment");
    template_matches(&spec);
    always_template(&spec, "ReplicaSet");
    deployment_strategy(&spec.at("strategy"));
    spec.at("minReadySeconds").non_negative();
    spec.at("revisionHistoryLimit").non_negative();
    let deadline = spec.at("progressDeadlineSeconds");
    deadline.non_negative();
    if deadline.int().is_some_and(|seconds| seconds <= spec.at("minReadySeconds").int().unwrap_or(0)) {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

fn deployment_strategy(strategy: &At<'_>) {
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" if !rolling.is_set() => rolling.required("this should be defaulted and never be nil"),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            int_or_percent(&unavailable);
            int_or_percent(&surge);
            if amount(&unavailable) == 0 && amount(&surge) == 0 {
                unavailable.invalid_as(
                    if unavailable.is_set() { unavailable.value.clone() } else { Value::from(0) },
                    "may not be 0 when `maxSurge` is 0",
                );
            }
            at_most_all(&unavailable);
        }
        _ => strategy.at("type").not_supported(&["Recreate", "RollingUpdate"]),
    }
}

pub(super) fn replica_set(object: &At<'_>) {
    let spec = object.at("spec");
    spec.at("replicas").non_negative();
    spec.at("minReadySeconds").non_negative();
    selector_matches(&spec, "deployment");
    template_matches(&spec);
    always_template(&spec, "ReplicaSet");
}

pub(super) fn replication_controller(object: &At<'_>) {
    let spec = object.at("spec");
    spec.at("minReadySeconds").non_negative();
    let selector = spec.at("selector");
    if selector.len() == 0 {
        selector.required("");
    }
    spec.at("replicas").non_negative();
    if !spec.at("template").is_set() {
        spec.at("template").required("");
        return;
    }
    let labels = spec.at("template").at("metadata").at("labels");
    if selector.entries().any(|(key, value)| labels.at(key).value != value.value) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
    always_template(&spec, "ReplicationController");
}

pub(super) fn daemon_set(object: &At<'_>) {
    let spec = object.at("spec");
    metadata::selector(&spec.at("selector"));
    let labels = spec.at("template").at("metadata").at("labels");
    if !metadata::selects(spec.at("selector").value, &labels) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
    let selector = spec.at("selector");
    if selector.is_set() && metadata::is_empty_selector(&selector) {
        selector.invalid("empty selector is invalid for daemonset");
    }
    always_template(&spec, "DaemonSet");
    spec.at("minReadySeconds").non_negative();
    daemon_set_strategy(&spec.at("updateStrategy"));
    spec.at("revisionHistoryLimit").non_negative();
}

fn daemon_set_strategy(strategy: &At<'_>) {
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => rolling.required(""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            for field in [&unavailable, &surge] {
                int_or_percent(field);
                at_most_all(field);
            }
            match (amount(&unavailable) != 0, amount(&surge) != 0) {
                (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero"),
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => strategy.invalid_as(strategy.value.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

pub(super) fn stateful_set(object: &At<'_>) {
    let spec = object.at("spec");
    match spec.at("podManagementPolicy").text() {
        "" => spec.at("podManagementPolicy").required(""),
        "OrderedReady" | "Parallel" => {}
        _ => spec.at("podManagementPolicy").invalid("must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "" => strategy.required(""),
        "OnDelete" => {
            if rolling.is_set() {
                rolling.invalid("only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            rolling.at("partition").non_negative();
            if rolling.at("maxUnavailable").is_set() {
                int_or_percent(&rolling.at("maxUnavailable"));
                at_most_all(&rolling.at("maxUnavailable"));
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.at(field).may_be_one_of(&["Delete", "Retain"]);
    }
    spec.at("replicas").non_negative();
    spec.at("minReadySeconds").non_negative();
    spec.at("ordinals").at("start").non_negative();
    selector_matches(&spec, "statefulset");
    if spec.at("selector").is_set() {
        template_matches(&spec);
    }
    always_template(&spec, "StatefulSet");
}

/// A StatefulSet changes only in these; the rest of its spec is its identity.
pub(super) fn stateful_set_update(object: &At<'_>, old: &At<'_>) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let strip = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(map) = spec.as_object_mut() {
            MUTABLE.iter().for_each(|key| {
                map.remove(*key);
            });
        }
        spec
    };
    let spec = object.at("spec");
    if !same(&strip(spec.value), &strip(old.at("spec").value)) {
        spec.forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

/// Counters in a status are not negative, and parts are not more than the whole.
pub(super) fn status(object: &At<'_>) {
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
