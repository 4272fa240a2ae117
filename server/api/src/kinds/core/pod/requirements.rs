//! Validation of resource names, quantities, requests and limits.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::names;
use crate::quantity::{self, Quantity};
use crate::validate::At;

const STANDARD: [&str; 30] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
    "count/pods",
    "count/services",
    "count/secrets",
    "count/configmaps",
    "count/resourcequotas",
    "count/replicationcontrollers",
    "count/persistentvolumeclaims",
    "limits.storage",
    "storage.limits",
    "deviceclasses",
];

pub(crate) fn parse(at: &At<'_>) -> Option<Quantity> {
    quantity::from_json(at.value).ok()
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// A vendor's resource, like `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// May more be limited than requested?
fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Counted in whole things.
fn is_integer(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || name.starts_with("count/")
        || is_extended(name)
}

/// Any resource's name.
pub(crate) fn name(name: &str, at: &At<'_>) -> bool {
    let messages = names::is_qualified_name(name);
    let fine = messages.is_empty();
    messages.into_iter().for_each(|message| at.invalid_as(name, message));
    if fine && !name.contains('/') && !STANDARD.contains(&name) && !is_huge_page(name) && !is_huge_page(&name.replace("requests.", "")) {
        at.invalid_as(name, "must be a standard resource type or fully qualified");
        return false;
    }
    fine
}

/// The name of a resource that a container may ask for.
pub(crate) fn container_name(resource: &str, at: &At<'_>) {
    name(resource, at);
    if !resource.contains('/') {
        if !matches!(resource, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(resource) {
            at.invalid_as(resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        at.invalid_as(resource, "doesn't follow extended resource name standard");
    }
}

/// Not negative, and whole where only whole makes sense.
pub(crate) fn quantity_value(resource: &str, at: &At<'_>) {
    let Some(value) = parse(at) else { return };
    if value.sign() < 0 {
        at.invalid_as(value.to_string(), "must be greater than or equal to 0");
    }
    if is_integer(resource) && !value.is_integer() {
        at.invalid_as(value.to_string(), "must be an integer");
    }
}

/// `resources` of a container (or an overhead written as limits).
pub(crate) fn container(resources: &At<'_>, claims: Option<&BTreeSet<&str>>) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    let (mut huge, mut ordinary) = (false, false);
    for (resource, limit) in limits.entries() {
        container_name(resource, &limit);
        quantity_value(resource, &limit);
        huge |= is_huge_page(resource);
        ordinary |= matches!(resource, "cpu" | "memory");
    }
    for (resource, request) in requests.entries() {
        container_name(resource, &request);
        quantity_value(resource, &request);
        huge |= is_huge_page(resource);
        ordinary |= matches!(resource, "cpu" | "memory");
        within_limit(resource, &request, &requests, &limits);
    }
    if huge && !ordinary {
        resources.forbidden("HugePages require cpu or memory");
    }
    for claim in resources.at("claims").items() {
        let claim_name = claim.at("name");
        if claim_name.text().is_empty() {
            claim_name.required("");
        } else if claims.is_some_and(|known| !known.contains(claim_name.text())) {
            claim_name.not_found();
        }
    }
}

fn within_limit(resource: &str, request: &At<'_>, requests: &At<'_>, limits: &At<'_>) {
    let limit = limits.value.get(resource);
    let Some(wanted) = parse(request) else { return };
    match limit.and_then(|value| quantity::from_json(value).ok()) {
        Some(limit) if wanted != limit && !overcommit_allowed(resource) => {
            requests.invalid_as(wanted.to_string(), format!("must be equal to {resource} limit of {limit}"));
        }
        Some(limit) if wanted > limit => {
            requests.invalid_as(wanted.to_string(), format!("must be less than or equal to {resource} limit of {limit}"));
        }
        None if !overcommit_allowed(resource) => {
            limits.required("Limit must be set for non overcommitable resources");
        }
        _ => {}
    }
}

/// `spec.resources` of a pod: only cpu, memory and huge pages, requests within limits.
pub(crate) fn pod(resources: &At<'_>) {
    if resources.at("claims").is_full() {
        resources.at("claims").forbidden("claims cannot be set for Resources at pod-level");
    }
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    for list in [&limits, &requests] {
        for (resource, value) in list.entries() {
            if name(resource, &value) && !matches!(resource, "cpu" | "memory") && !is_huge_page(resource) {
                value.named(value.path.clone()).errors.push(crate::field::FieldError::not_supported(
                    &value.path,
                    Value::from(resource),
                    &["cpu", "hugepages-", "memory"],
                ));
            }
            quantity_value(resource, &value);
        }
    }
    for (resource, request) in requests.entries() {
        within_limit(resource, &request, &requests, &limits);
    }
}
