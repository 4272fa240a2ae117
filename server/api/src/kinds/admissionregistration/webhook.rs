//! What both webhook configurations share. Upstream: `pkg/apis/admissionregistration/validation`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::matching;
use crate::default::{Lit::*, Set};
use crate::names;
use crate::resource::Cells;
use crate::validate::{At, metadata};

/// Defaults of each webhook.
pub(crate) const WEBHOOK: &[Set] = &[
    Set("webhooks[]", "failurePolicy", S("Fail")),
    Set("webhooks[]", "matchPolicy", S("Equivalent")),
    Set("webhooks[]", "namespaceSelector", Obj),
    Set("webhooks[]", "objectSelector", Obj),
    Set("webhooks[]", "timeoutSeconds", I(10)),
    Set("webhooks[].rules[]", "scope", S("*")),
    Set("webhooks[].clientConfig.service", "port", I(443)),
];

/// Webhooks of both kinds.
pub(crate) fn webhooks(object: &At<'_>, mutating: bool) {
    let mut seen = BTreeSet::new();
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
        if versions.is_empty() {
            versions.required("must specify one of v1, v1beta1");
        } else if !versions.strings().iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
            versions.invalid("must include at least one of v1, v1beta1");
        }
        hook.at("rules").items().for_each(|rule| matching::rule(&rule));
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
        matching::match_conditions(&hook.at("matchConditions"));
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

/// Name, number of webhooks, age.
pub(crate) fn cells(cells: &Cells<'_>) -> Vec<Value> {
    vec![cells.name(), json!(cells.list(&["webhooks"]).len()), cells.age()]
}
