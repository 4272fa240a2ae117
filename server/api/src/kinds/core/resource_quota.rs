//! ResourceQuotas.

use serde_json::{Value, json};

use super::pod::requirements;
use crate::default::{Lit::Obj, Set, fill};
use crate::field::FieldPath;
use crate::kinds::text::size;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// A bound on what a namespace uses.
pub(crate) struct ResourceQuota;

impl Kind for ResourceQuota {
    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj)]);
    }

    fn validate(&self, object: &At<'_>) {
        resource_quota(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        resource_quota(object);
        object.at("spec").at("scopes").immutable(&old.at("spec").at("scopes"));
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        resource_quota(object);
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Request|Limit|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let mut row = vec![cells.name()];
        row.extend(quota(cells));
        row
    }
}

/// Names without a domain that a quota may bound.
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: [&str; 7] =
    ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity", "VolumeAttributesClass"];

fn is_standard(resource: &str) -> bool {
    STANDARD.contains(&resource) || resource.strip_prefix("requests.").unwrap_or(resource).starts_with("hugepages-")
}

fn quota_name(resource: &str, at: &At<'_>) {
    if requirements::name(resource, at) && !resource.contains('/') && !is_standard(resource) {
        at.invalid_as(resource, "must be a standard resource for quota");
    }
}

/// Whether objects in the scope have amounts of the resource.
fn scope_fits(scope: &str, resource: &str) -> bool {
    let computes = matches!(resource, "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory");
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        scope if SCOPES.contains(&scope) => computes || resource == "pods",
        _ => true,
    }
}

/// How many limits have nothing to do with a scope.
fn unfit(object: &At<'_>, scope: &str) -> usize {
    let hard = object.at("spec").at("hard");
    hard.entries().filter(|(resource, _)| is_standard(resource) && !scope_fits(scope, resource)).count()
}

fn resource_quota(object: &At<'_>) {
    limits(object);
    scopes(object);
    selector(object);
}

fn limits(object: &At<'_>) {
    for path in [["spec", "hard"], ["status", "hard"], ["status", "used"]] {
        for (resource, value) in object.at(path[0]).at(path[1]).entries() {
            quota_name(resource, &value);
            requirements::quantity_value(resource, &value);
        }
    }
}

fn scopes(object: &At<'_>) {
    let scopes = object.at("spec").at("scopes");
    let all = scopes.strings();
    for scope in &all {
        if !SCOPES.contains(scope) {
            scopes.invalid("unsupported scope");
        }
        (0..unfit(object, scope)).for_each(|_| scopes.invalid("unsupported scope applied to resource"));
    }
    conflicts(&all, &scopes);
}

fn conflicts(all: &[&str], scopes: &At<'_>) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| all.contains(scope)) {
            scopes.invalid("conflicting scopes");
        }
    }
}

fn selector(object: &At<'_>) {
    let terms = object.at("spec").at("scopeSelector").at("matchExpressions");
    let terms_path = FieldPath::new("spec.scopeSelector.matchExpressions");
    let mut all = Vec::new();
    for term in terms.items() {
        all.push(term.value["scopeName"].as_str().unwrap_or_default());
        let term = term.named(terms_path.clone());
        let (scope, operator, values) = (term.at("scopeName"), term.at("operator"), term.at("values"));
        if !SCOPES.contains(&scope.text()) {
            scope.invalid("unsupported scope");
        }
        (0..unfit(object, scope.text())).for_each(|_| terms.invalid("unsupported scope applied to resource"));
        if !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass") && operator.text() != "Exists" {
            operator.invalid(
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid("not a valid selector operator"),
        }
    }
    conflicts(&all, &object.at("spec").at("scopes").named(terms_path));
}

fn quota(cells: &Cells<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in cells.at(&["status", "hard"]).as_object().into_iter().flatten() {
        let used = size(&cells.at(&["status", "used"])[resource.as_str()]);
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {used}/{}", size(hard)));
    }
    vec![json!(requests.join(", ")), json!(limits.join(", ")), cells.age()]
}
