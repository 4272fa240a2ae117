//! Roles of either scope. Upstream: `pkg/apis/rbac/validation`.

use crate::validate::{At, metadata};

pub(crate) fn role(object: &At<'_>, namespaced: bool) {
    for rule in object.at("rules").items() {
        policy_rule(&rule, namespaced);
    }
    let aggregation = object.at("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.at("clusterRoleSelectors");
        if selectors.is_empty() {
            selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        selectors.items().for_each(|selector| metadata::selector(&selector));
    }
}

fn policy_rule(rule: &At<'_>, namespaced: bool) {
    if rule.at("verbs").is_empty() {
        rule.at("verbs").required("verbs must contain at least one value");
    }
    let (groups, resources, names, urls) =
        (rule.at("apiGroups"), rule.at("resources"), rule.at("resourceNames"), rule.at("nonResourceURLs"));
    if !urls.is_empty() {
        if namespaced {
            urls.invalid("namespaced rules cannot apply to non-resource URLs");
        }
        if !groups.is_empty() || !resources.is_empty() || !names.is_empty() {
            urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if groups.is_empty() {
        groups.required("resource rules must supply at least one api group");
    }
    if resources.is_empty() {
        resources.required("resource rules must supply at least one resource");
    }
}
