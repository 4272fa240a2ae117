//! Roles and bindings.

use super::at::{At, same};
use super::metadata;
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(object: &At<'_>, namespaced: bool) {
    for rule in object.at("rules").items() {
        policy_rule(&rule, namespaced);
    }
    let aggregation = object.at("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.at("clusterRoleSelectors");
        if selectors.len() == 0 {
            selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        selectors.items().for_each(|selector| metadata::selector(&selector));
    }
}

fn policy_rule(rule: &At<'_>, namespaced: bool) {
    if rule.at("verbs").len() == 0 {
        rule.at("verbs").required("verbs must contain at least one value");
    }
    let (groups, resources, names, urls) =
        (rule.at("apiGroups"), rule.at("resources"), rule.at("resourceNames"), rule.at("nonResourceURLs"));
    if urls.len() > 0 {
        if namespaced {
            urls.invalid("namespaced rules cannot apply to non-resource URLs");
        }
        if groups.len() > 0 || resources.len() > 0 || names.len() > 0 {
            urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if groups.len() == 0 {
        groups.required("resource rules must supply at least one api group");
    }
    if resources.len() == 0 {
        resources.required("resource rules must supply at least one resource");
    }
}

pub(super) fn binding(object: &At<'_>, namespaced: bool) {
    let reference = object.at("roleRef");
    if reference.at("apiGroup").text() != GROUP {
        reference.at("apiGroup").not_supported(&[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&reference.at("kind").text()) {
        reference.at("kind").not_supported(kinds);
    }
    reference.at("name").must_obey(names::is_path_segment_name);
    object.at("subjects").items().for_each(|one| subject(&one, namespaced));
}

fn subject(subject: &At<'_>, namespaced: bool) {
    let (name, group) = (subject.at("name"), subject.at("apiGroup"));
    if name.text().is_empty() {
        name.required("");
    }
    match subject.at("kind").text() {
        "ServiceAccount" => {
            name.may_obey(names::is_dns1123_subdomain);
            if group.is_full() {
                group.not_supported(&[""]);
            }
            if !namespaced && subject.at("namespace").text().is_empty() {
                subject.at("namespace").required("");
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                group.not_supported(&[GROUP]);
            }
        }
        _ => subject.at("kind").not_supported(&["ServiceAccount", "User", "Group"]),
    }
}

/// A binding's role is what its subjects were given: it never changes under them.
pub(super) fn binding_update(object: &At<'_>, old: &At<'_>) {
    if !same(object.at("roleRef").value, old.at("roleRef").value) {
        object.at("roleRef").invalid("cannot change roleRef");
    }
}
