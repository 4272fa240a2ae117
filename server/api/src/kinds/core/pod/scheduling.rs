//! Validation of where a pod may run: affinity, tolerations, taints, spreading.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::field::FieldError;
use crate::names;
use crate::validate::At;
use crate::validate::metadata::{label_name, selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// `spec.affinity`.
pub(crate) fn affinity(affinity: &At<'_>) {
    let node = affinity.at("nodeAffinity");
    if node.at(REQUIRED).is_set() {
        node_selector(&node.at(REQUIRED));
    }
    for term in node.at(PREFERRED).items() {
        weight(&term.at("weight"));
        node_selector_term(&term.at("preference"), true);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.at(kind);
        for term in pods.at(REQUIRED).items() {
            pod_term(&term);
        }
        for term in pods.at(PREFERRED).items() {
            weight(&term.at("weight"));
            pod_term(&term.at("podAffinityTerm"));
        }
    }
}

fn weight(weight: &At<'_>) {
    let value = weight.int().unwrap_or(0);
    if !(1..=100).contains(&value) {
        weight.invalid_as(value, "must be in the range 1-100");
    }
}

/// A NodeSelector: at least one term.
pub(crate) fn node_selector(node: &At<'_>) {
    let terms = node.at("nodeSelectorTerms");
    if terms.is_empty() {
        terms.required("must have at least one node selector term");
        return;
    }
    for term in terms.items() {
        node_selector_term(&term, false);
    }
}

/// Preferred terms may hold values that no label can have: upstream once let them in.
fn node_selector_term(term: &At<'_>, any_value: bool) {
    for requirement in term.at("matchExpressions").items() {
        let values = requirement.at("values");
        match requirement.at("operator").text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.len() != 1 => {
                values.required("must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => requirement.at("operator").invalid("not a valid selector operator"),
        }
        label_name(&requirement.at("key"));
        if !any_value {
            values.items().for_each(|value| value.obeys(names::is_label_value));
        }
    }
    for requirement in term.at("matchFields").items() {
        let values = requirement.at("values");
        match requirement.at("operator").text() {
            "In" | "NotIn" if values.len() != 1 => {
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
            }
            "In" | "NotIn" => {}
            _ => requirement.at("operator").invalid("not a valid selector operator"),
        }
        if requirement.at("key").text() == "metadata.name" {
            values.items().for_each(|value| value.obeys(names::is_dns1123_subdomain));
        } else {
            requirement.at("key").invalid("not a valid field selector key");
        }
    }
}

fn pod_term(term: &At<'_>) {
    selector(&term.at("labelSelector"));
    selector(&term.at("namespaceSelector"));
    for namespace in term.at("namespaces").items() {
        namespace.named(term.path.child("namespace")).obeys(names::is_dns1123_label);
    }
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = term.at(list);
        if !keys.is_empty() && !term.at("labelSelector").is_set() {
            keys.forbidden("must not be specified when labelSelector is not set");
        } else {
            keys.items().for_each(|key| label_name(&key));
        }
    }
    let mismatched = term.at("mismatchLabelKeys").strings();
    for key in term.at("matchLabelKeys").items().filter(|key| mismatched.contains(&key.text())) {
        key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
    }
    let topology = term.at("topologyKey");
    if topology.text().is_empty() {
        topology.required("can not be empty");
    }
    label_name(&topology);
}

/// `spec.tolerations`.
pub(crate) fn tolerations(tolerations: &At<'_>) {
    for toleration in tolerations.items() {
        let (key, operator, value, effect) =
            (toleration.at("key"), toleration.at("operator"), toleration.at("value"), toleration.at("effect"));
        if key.is_full() {
            label_name(&key);
        } else if operator.text() != "Exists" {
            operator
                .invalid_as(operator.text(), "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
        }
        if toleration.at("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                let messages = names::is_label_value(value.text());
                if !messages.is_empty() {
                    operator.invalid_as(value.text(), messages.join(";"));
                }
            }
            "Exists" => {
                if value.is_full() {
                    operator.invalid_as(value.text(), "value must be empty when `operator` is 'Exists'");
                }
            }
            _ => operator.not_supported(&["Equal", "Exists"]),
        }
        effect.may_be_one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

/// `spec.taints` of a Node.
pub(crate) fn taints(taints: &At<'_>) {
    let mut seen = BTreeSet::new();
    for taint in taints.items() {
        label_name(&taint.at("key"));
        let value = taint.at("value");
        let messages = names::is_label_value(value.text());
        if !messages.is_empty() {
            value.invalid(messages.join(";"));
        }
        taint.at("effect").one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if !seen.insert((taint.at("key").text(), taint.at("effect").text())) {
            let mut error = FieldError::duplicate(&taint.path, taint.value.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            taint.errors.push(error);
        }
    }
}

/// `spec.topologySpreadConstraints`.
pub(crate) fn spread(constraints: &At<'_>) {
    let all: Vec<At<'_>> = constraints.items().collect();
    for (index, constraint) in all.iter().enumerate() {
        constraint.at("maxSkew").positive();
        if constraint.at("topologyKey").text().is_empty() {
            constraint.at("topologyKey").required("can not be empty");
        }
        let action = constraint.at("whenUnsatisfiable");
        if !matches!(action.text(), "DoNotSchedule" | "ScheduleAnyway") {
            action.not_supported(&["DoNotSchedule", "ScheduleAnyway"]);
        }
        let pair = |at: &At<'_>| (at.at("topologyKey").text().to_owned(), at.at("whenUnsatisfiable").text().to_owned());
        if all[index + 1..].iter().any(|other| pair(other) == pair(constraint)) {
            let (key, when) = pair(constraint);
            constraint.errors.push(FieldError::duplicate(
                &constraint.path.child("{topologyKey, whenUnsatisfiable}"),
                Value::from(format!("{{{key}, {when}}}")),
            ));
        }
        let domains = constraint.at("minDomains");
        if domains.is_set() {
            domains.positive();
            if action.text() != "DoNotSchedule" {
                domains.invalid(format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text()));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.at(policy).may_be_one_of(&["Honor", "Ignore"]);
        }
        spread_keys(constraint);
        selector(&constraint.at("labelSelector"));
    }
}

fn spread_keys(constraint: &At<'_>) {
    let keys = constraint.at("matchLabelKeys");
    if keys.is_empty() {
        return;
    }
    let labels = constraint.at("labelSelector");
    if !labels.is_set() {
        keys.forbidden("must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        label_name(&key);
        let named = labels.at("matchLabels").map().is_some_and(|map| map.contains_key(key.text()))
            || labels.at("matchExpressions").items().any(|term| term.at("key").text() == key.text());
        if named {
            key.invalid("exists in both matchLabelKeys and labelSelector");
        }
    }
}
