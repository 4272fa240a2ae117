//! What the admission policies and their bindings share.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set};
use crate::kinds::text::{UNSET, plain, selector};
use crate::resource::Cells;

/// Defaults of a policy.
pub(crate) const POLICY: &[Set] = &[
    Set("spec", "failurePolicy", S("Fail")),
    Set("spec.matchConstraints", "matchPolicy", S("Equivalent")),
    Set("spec.matchConstraints", "namespaceSelector", Obj),
    Set("spec.matchConstraints", "objectSelector", Obj),
    Set("spec.matchConstraints.resourceRules[]", "scope", S("*")),
    Set("spec.matchConstraints.excludeResourceRules[]", "scope", S("*")),
];

/// Defaults of a binding.
pub(crate) const POLICY_BINDING: &[Set] = &[
    Set("spec.matchResources", "matchPolicy", S("Equivalent")),
    Set("spec.matchResources", "namespaceSelector", Obj),
    Set("spec.matchResources", "objectSelector", Obj),
    Set("spec.matchResources.resourceRules[]", "scope", S("*")),
    Set("spec.matchResources.excludeResourceRules[]", "scope", S("*")),
];

/// A part of a policy or a binding that asks for a record in the audit log.
pub(crate) fn audit_warning(asks: bool) -> Vec<String> {
    let text = "spec: this release of trireme keeps no audit log: the action Audit and auditAnnotations have no effect";
    if asks { vec![text.to_owned()] } else { Vec::new() }
}

/// Name, number of items in `spec.<list>`, kind of the parameters, age.
pub(crate) fn cells(cells: &Cells<'_>, list: &str) -> Vec<Value> {
    let kind = cells.at(&["spec", "paramKind"]);
    let kind = match kind.is_object() {
        true => format!("{}/{}", plain(&kind["apiVersion"]), plain(&kind["kind"])),
        false => UNSET.to_owned(),
    };
    vec![cells.name(), json!(cells.list(&["spec", list]).len()), json!(kind), cells.age()]
}

/// Name, policy, parameters, age of a binding.
pub(crate) fn binding_cells(cells: &Cells<'_>) -> Vec<Value> {
    let parameter = cells.at(&["spec", "paramRef"]);
    let shown = match (plain(&parameter["name"]), plain(&parameter["namespace"])) {
        _ if !parameter.is_object() => UNSET.to_owned(),
        (name, _) if name.is_empty() => selector(&parameter["selector"]),
        (name, namespace) if namespace.is_empty() => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    };
    vec![cells.name(), json!(cells.text(&["spec", "policyName"])), json!(shown), cells.age()]
}
