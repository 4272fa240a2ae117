//! FlowSchemas. Upstream: `pkg/apis/flowcontrol/validation`.

use serde_json::{Value, json};

use crate::bootstrap;

use crate::default::{Lit::*, Set, fill};
use crate::kinds::text::{NONE, condition};
use crate::resource::{Cells, Column, Kind, carry};
use crate::time::Timestamp;
use crate::validate::{At, same};
use crate::{meta, names};

/// The largest precedence.
const PRECEDENCE_MAX: i64 = 10_000;
/// The schemas whose spec is fixed.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const ALL: &str = "*";

/// Which requests have which priority.
pub(crate) struct FlowSchema;

impl Kind for FlowSchema {
    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("", "status", Obj), Set("spec", "matchingPrecedence", Z(1000))]);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry(object, old, "metadata");
    }

    fn validate(&self, object: &At<'_>) {
        spec(&object.at("spec"), object.at("metadata").at("name").text());
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|PriorityLevel|MatchingPrecedence|DistinguisherMethod|Age|MissingPL")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let dangling = condition(cells.object, "Dangling").and_then(|condition| condition["status"].as_str());
        vec![
            cells.name(),
            json!(cells.text(&["spec", "priorityLevelConfiguration", "name"])),
            json!(cells.int(&["spec", "matchingPrecedence"])),
            cells.text_or(&["spec", "distinguisherMethod", "type"], NONE),
            cells.age(),
            json!(dangling.unwrap_or("?")),
        ]
    }
}

fn spec(spec: &At<'_>, name: &str) {
    let precedence = spec.at("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        number if number <= 0 => precedence.invalid_as(number, "must be a positive value"),
        number if number > PRECEDENCE_MAX => precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}")),
        1 if name != "exempt" => precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"),
        _ => {}
    }
    let distinguisher = spec.at("distinguisherMethod");
    if distinguisher.is_set() && !matches!(distinguisher.at("type").text(), "ByUser" | "ByNamespace") {
        distinguisher.at("type").not_supported(&["ByNamespace", "ByUser"]);
    }
    let level = spec.at("priorityLevelConfiguration").at("name");
    match level.text() {
        "" => level.required("must reference a priority level"),
        _ => level.obeys(names::is_dns1123_subdomain),
    }
    spec.at("rules").items().for_each(|one| rule(&one));
    if MANDATORY.contains(&name) {
        let fixed = bootstrap::flow_schemas().into_iter().find(|one| meta::name(one) == name);
        if fixed.is_some_and(|fixed| !same(&fixed["spec"], spec.value)) {
            spec.invalid(format!("spec of '{name}' must equal the fixed value"));
        }
    }
}

fn rule(rule: &At<'_>) {
    let subjects = rule.at("subjects");
    if subjects.is_empty() {
        subjects.required("subjects must contain at least one value");
    }
    subjects.items().for_each(|one| subject(&one));
    let (resources, paths) = (rule.at("resourceRules"), rule.at("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        rule.required("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    resources.items().for_each(|one| resource_rule(&one));
    paths.items().for_each(|one| path_rule(&one));
}

fn subject(subject: &At<'_>) {
    const SECTIONS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.at("kind").text();
    let Some((_, section)) = SECTIONS.into_iter().find(|(name, _)| *name == kind) else {
        return subject.at("kind").not_supported(&["Group", "ServiceAccount", "User"]);
    };
    let named = subject.at(section);
    if named.is_set() {
        match section {
            "serviceAccount" => service_account(&named),
            _ if named.at("name").text().is_empty() => named.at("name").required(""),
            _ => {}
        }
    } else {
        named.required(&format!("{section} is required when subject kind is '{kind}'"));
    }
    for (other_kind, other) in SECTIONS.into_iter().filter(|(other, _)| *other != kind) {
        if subject.at(other).is_set() {
            subject.at(other).forbidden(format!("{other} is forbidden when subject kind is not '{other_kind}'"));
        }
    }
}

fn service_account(account: &At<'_>) {
    let (namespace, name) = (account.at("namespace"), account.at("name"));
    match name.text() {
        "" => name.required(""),
        ALL => {}
        _ => name.obeys(names::is_dns1123_subdomain),
    }
    match namespace.text() {
        "" => namespace.required("must specify namespace for service account"),
        _ => namespace.obeys(names::is_dns1123_label),
    }
}

/// A list of names that is not empty, and in which `*` stands alone. True if it is `*`.
fn list(list: &At<'_>, missing: &str, what: &str) -> bool {
    let names = list.strings();
    if names.is_empty() {
        list.required(missing);
    }
    let is_all = names.contains(&ALL);
    if is_all && names.len() > 1 {
        list.invalid(format!("if '*' is present, must not specify other {what}"));
    }
    is_all
}

fn verbs(verbs: &At<'_>) {
    if !list(verbs, "verbs must contain at least one value", "verbs") && verbs.strings().iter().any(|verb| !VERBS.contains(verb)) {
        verbs.not_supported(VERBS);
    }
}

fn resource_rule(rule: &At<'_>) {
    verbs(&rule.at("verbs"));
    list(&rule.at("apiGroups"), "resource rules must supply at least one api group", "api groups");
    list(&rule.at("resources"), "resource rules must supply at least one resource", "resources");
    let namespaces = rule.at("namespaces");
    if namespaces.is_empty() {
        if !rule.at("clusterScope").flag() {
            namespaces.required("resource rules that are not cluster scoped must supply at least one namespace");
        }
    } else if !list(&namespaces, "", "namespaces") {
        for namespace in namespaces.items() {
            for message in names::is_dns1123_label(namespace.text()) {
                namespace.invalid(format!("each member of this list must be '*' or a DNS-1123 label; {message}"));
            }
        }
    }
}

fn path_rule(rule: &At<'_>) {
    verbs(&rule.at("verbs"));
    let urls = rule.at("nonResourceURLs");
    if !list(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs") {
        for url in urls.items() {
            if let Some(error) = path_error(url.text()) {
                url.invalid(error);
            }
        }
    }
}

fn path_error(path: &str) -> Option<&'static str> {
    let inner = path.strip_suffix("/*").unwrap_or(path);
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if inner.contains('*') => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}
