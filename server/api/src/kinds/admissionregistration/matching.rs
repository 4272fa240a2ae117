//! What webhooks and policies are asked about: rules and match conditions. Upstream: `pkg/apis/admissionregistration/validation`.

use std::collections::BTreeSet;

use crate::field::FieldError;
use crate::names;
use crate::validate::At;

/// Match conditions of a list.
const MAX_CONDITIONS: usize = 64;

/// Match conditions of a webhook or a policy.
pub(crate) fn match_conditions(conditions: &At<'_>) {
    if conditions.len() > MAX_CONDITIONS {
        conditions.errors.push(FieldError::too_many(&conditions.path, conditions.len(), MAX_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        if condition.at("expression").text().trim().is_empty() {
            condition.at("expression").required("");
        }
        let name = condition.at("name");
        name.must_obey(names::is_qualified_name);
        if !name.text().is_empty() && !seen.insert(name.text()) {
            name.duplicate();
        }
    }
}

/// A rule of a webhook or of a policy.
pub(crate) fn rule(rule: &At<'_>) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        let list = rule.at(field);
        let all = list.strings();
        if all.is_empty() {
            list.required("");
        }
        if field != "resources" && all.len() > 1 && all.contains(&"*") {
            list.invalid(
                "if '*' is present, must not specify other ".to_owned()
                    + match field {
                        "apiGroups" => "API groups",
                        "apiVersions" => "API versions",
                        _ => "operations",
                    },
            );
        }
    }
    resources(&rule.at("resources"));
    for operation in rule.at("operations").items() {
        operation.may_be_one_of(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    rule.at("scope").may_be_one_of(&["*", "Cluster", "Namespaced"]);
}

/// Resources must not be named twice, once by a pattern.
fn resources(list: &At<'_>) {
    let (mut all_parts, mut all_resources) = (BTreeSet::new(), BTreeSet::new());
    for item in list.items() {
        let Some((resource, part)) = item.text().split_once('/') else {
            if item.text().is_empty() {
                item.required("");
            }
            continue;
        };
        if all_parts.contains(resource) {
            item.invalid(format!("if '{resource}/*' is present, must not specify {}", item.text()));
        }
        if all_resources.contains(part) {
            item.invalid(format!("if '*/{part}' is present, must not specify {}", item.text()));
        }
        if part == "*" {
            all_parts.insert(resource);
        }
        if resource == "*" {
            all_resources.insert(part);
        }
    }
    let names = list.strings();
    if names.len() > 1 && names.contains(&"*/*") {
        list.invalid("if '*/*' is present, must not specify other resources");
    }
    if names.contains(&"*") && names.iter().any(|name| *name != "*" && !name.contains('/')) {
        list.invalid("if '*' is present, must not specify other resources without subresources");
    }
}
