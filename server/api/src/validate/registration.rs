//! What extends the API: CustomResourceDefinitions, APIServices, admission webhooks.

use super::at::At;
use super::metadata;
use crate::names;

/// A CRD is named for what it defines; its structural schema is checked by the part that serves it.
pub(super) fn custom_resource_definition(object: &At<'_>) {
    let spec = object.at("spec");
    let (group, plural) = (spec.at("group"), spec.at("names").at("plural"));
    let name = object.at("metadata").at("name");
    let wanted = format!("{}.{}", plural.text(), group.text());
    if name.text() != wanted {
        name.invalid("must be spec.names.plural+\".\"+spec.group");
    }
    if group.text().is_empty() {
        group.required("");
    } else {
        group.obeys(names::is_dns1123_subdomain);
        if !group.text().contains('.') {
            group.invalid("should be a domain with at least one dot");
        }
    }
    spec.at("scope").one_of(&["Cluster", "Namespaced"]);
    let versions = spec.at("versions");
    let stored: Vec<At<'_>> = versions.items().filter(|version| version.at("storage").flag()).collect();
    let mut seen = std::collections::BTreeSet::new();
    for version in versions.items() {
        version.at("name").must_obey(names::is_dns1035_label);
        if !seen.insert(version.at("name").text()) {
            versions.invalid("must contain unique version names");
        }
        if !version.at("schema").at("openAPIV3Schema").is_set() {
            version.at("schema").at("openAPIV3Schema").required("schemas are required");
        }
    }
    if stored.len() != 1 {
        versions.invalid("must have exactly one version marked as storage version");
    }
    let names_at = spec.at("names");
    plural.must_obey(names::is_dns1035_label);
    names_at.at("singular").may_obey(names::is_dns1035_label);
    for field in ["kind", "listKind"] {
        let kind = names_at.at(field);
        if kind.text().is_empty() {
            kind.required("");
        } else {
            let lower = kind.text().to_lowercase();
            let messages = names::is_dns1035_label(&lower);
            if !messages.is_empty() {
                kind.invalid(format!("may have mixed case, but should otherwise match: {}", messages.join(",")));
            }
        }
    }
    for short in names_at.at("shortNames").items().chain(names_at.at("categories").items()) {
        short.obeys(names::is_dns1035_label);
    }
    if names_at.at("listKind").is_full() && names_at.at("kind").text() == names_at.at("listKind").text() {
        names_at.at("listKind").invalid("kind and listKind may not be the same");
    }
}

pub(super) fn custom_resource_definition_update(object: &At<'_>, old: &At<'_>) {
    let established = old
        .at("status")
        .at("conditions")
        .items()
        .any(|condition| condition.at("type").text() == "Established" && condition.at("status").text() == "True");
    let (spec, before) = (object.at("spec"), old.at("spec"));
    if established {
        spec.at("scope").immutable(&before.at("scope"));
        spec.at("names").at("kind").immutable(&before.at("names").at("kind"));
    }
    spec.at("group").immutable(&before.at("group"));
    spec.at("names").at("plural").immutable(&before.at("names").at("plural"));
}

/// Group and version name an APIService.
pub(super) fn api_service(object: &At<'_>) {
    let (meta, spec) = (object.at("metadata"), object.at("spec"));
    let (group, version) = (spec.at("group"), spec.at("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    if meta.at("name").text() != wanted {
        meta.at("name").invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    if group.text().is_empty() {
        if version.text() != "v1" {
            group.required("only v1 may have an empty group and it better be legacy kube");
        }
    } else {
        group.obeys(names::is_dns1123_subdomain);
    }
    if version.text().is_empty() {
        version.required("");
    } else {
        version.obeys(names::is_dns1035_label);
    }
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.at(field);
        let value = priority.int().unwrap_or(0);
        if value <= 0 || value > most {
            priority.invalid_as(value, format!("must be positive and less than {most}"));
        }
    }
    let service = spec.at("service");
    if service.is_set() {
        for field in ["namespace", "name"] {
            if service.at(field).text().is_empty() {
                service.at(field).required("");
            }
        }
        service.at("port").in_range(1, 65_535);
        let insecure = spec.at("insecureSkipTLSVerify");
        if insecure.flag() && spec.at("caBundle").is_full() {
            insecure.invalid("may not be true if caBundle is present");
        }
    } else if spec.at("insecureSkipTLSVerify").flag() {
        spec.at("insecureSkipTLSVerify").invalid("may not be true if service is nil");
    }
}

/// Webhooks of both kinds.
pub(super) fn webhooks(object: &At<'_>, mutating: bool) {
    let mut seen = std::collections::BTreeSet::new();
    for hook in object.at("webhooks").items() {
        let name = hook.at("name");
        if name.text().is_empty() {
            name.required("");
        } else {
            let messages = names::is_dns1123_subdomain(name.text());
            if !messages.is_empty() {
                name.invalid(messages.join(","));
            } else if name.text().split('.').count() < 3 {
                name.invalid("should be a domain with at least three segments separated by dots");
            }
        }
        if !seen.insert(name.text()) {
            name.duplicate();
        }
        let versions = hook.at("admissionReviewVersions");
        if versions.len() == 0 {
            versions.required("must specify one of v1, v1beta1");
        } else if !versions.strings().iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
            versions.invalid("must include at least one of v1, v1beta1");
        }
        hook.at("rules").items().for_each(|rule| webhook_rule(&rule));
        hook.at("failurePolicy").may_be_one_of(&["Fail", "Ignore"]);
        hook.at("matchPolicy").may_be_one_of(&["Equivalent", "Exact"]);
        let effects = hook.at("sideEffects");
        if !effects.is_set() {
            effects.required("must specify one of None, NoneOnDryRun");
        } else {
            effects.may_be_one_of(&["None", "NoneOnDryRun"]);
        }
        let seconds = hook.at("timeoutSeconds");
        if seconds.int().is_some_and(|value| !(1..=30).contains(&value)) {
            seconds.invalid("the timeout value must be between 1 and 30 seconds");
        }
        metadata::selector(&hook.at("namespaceSelector"));
        metadata::selector(&hook.at("objectSelector"));
        if mutating {
            hook.at("reinvocationPolicy").may_be_one_of(&["IfNeeded", "Never"]);
        }
        let client = hook.at("clientConfig");
        match (client.at("url").is_set(), client.at("service").is_set()) {
            (true, true) | (false, false) => client.required("exactly one of url or service is required"),
            (false, true) => {
                for field in ["name", "namespace"] {
                    if client.at("service").at(field).text().is_empty() {
                        client.at("service").at(field).required("");
                    }
                }
                client.at("service").at("port").in_range(1, 65_535);
            }
            (true, false) => {
                if !client.at("url").text().starts_with("https://") {
                    client.at("url").invalid("'https' is the only allowed URL scheme");
                }
            }
        }
    }
}

fn webhook_rule(rule: &At<'_>) {
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
    for operation in rule.at("operations").items() {
        operation.may_be_one_of(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    rule.at("scope").may_be_one_of(&["*", "Cluster", "Namespaced"]);
}
