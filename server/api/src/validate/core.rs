//! ConfigMap, Secret, Namespace, Node, LimitRange, ResourceQuota, Event, Binding.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::Value;

use super::at::{At, same};
use super::requirements::{self, parse};
use super::{scheduling, service};
use crate::field::FieldPath;
use crate::names;

const MAX_BYTES: usize = 1024 * 1024;

fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

pub(super) fn config_map(object: &At<'_>) {
    let (data, binary) = (object.at("data"), object.at("binaryData"));
    let mut bytes = 0;
    for (key, value) in data.entries() {
        names::is_config_map_key(key).into_iter().for_each(|message| value.invalid_as(key, message));
        if binary.at(key).is_set() {
            value.invalid_as(key, "duplicate of key present in binaryData");
        }
        bytes += value.len();
    }
    for (key, value) in binary.entries() {
        names::is_config_map_key(key).into_iter().for_each(|message| value.invalid_as(key, message));
        bytes += decoded_len(value.text());
    }
    if bytes > MAX_BYTES {
        object.named(FieldPath::new("")).too_long(MAX_BYTES);
    }
}

/// `immutable: true` freezes these fields, and itself.
pub(super) fn immutable(object: &At<'_>, old: &At<'_>, fields: &[&str]) {
    if !old.at("immutable").flag() {
        return;
    }
    let message = "field is immutable when `immutable` is set";
    if !object.at("immutable").flag() {
        object.at("immutable").forbidden(message);
    }
    for field in fields {
        if !same(object.at(field).value, old.at(field).value) {
            object.at(field).forbidden(message);
        }
    }
}

pub(super) fn secret(object: &At<'_>) {
    let data = object.at("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        names::is_config_map_key(key).into_iter().for_each(|message| value.invalid_as(key, message));
        bytes += decoded_len(value.text());
    }
    if bytes > MAX_BYTES {
        data.too_long(MAX_BYTES);
    }
    let has = |key: &str| data.at(key).is_set();
    let required = |key: &str| data.named(data.path.key(key)).required("");
    match object.at("type").text() {
        "kubernetes.io/service-account-token" => {
            let notes = object.at("metadata").at("annotations");
            const KEY: &str = "kubernetes.io/service-account.name";
            if notes.at(KEY).text().is_empty() {
                notes.named(notes.path.key(KEY)).required("");
            }
        }
        "kubernetes.io/dockercfg" => json_key(&data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_key(&data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            required("username");
            required("password");
        }
        "kubernetes.io/ssh-auth" if !data.at("ssh-privatekey").is_full() => required("ssh-privatekey"),
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].iter().filter(|key| !has(key)).for_each(|key| required(key)),
        _ => {}
    }
}

/// The key is there and holds a JSON object. What it holds is not repeated.
fn json_key(data: &At<'_>, key: &str) {
    let value = data.at(key).named(data.path.key(key));
    if !value.is_set() {
        value.required("");
        return;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.text()).unwrap_or_default();
    let message = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(_) => "json: cannot unmarshal into Go value of type map[string]interface {}".to_owned(),
        Err(_) if bytes.is_empty() => "unexpected end of JSON input".to_owned(),
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(_) => "invalid character in JSON input".to_owned(),
    };
    value.invalid_as("<secret contents redacted>", message);
}

pub(super) fn namespace(object: &At<'_>) {
    let finalizers = object.at("spec").at("finalizers");
    for finalizer in finalizers.items() {
        finalizer_name(&finalizer.named(finalizers.path.clone()));
    }
}

fn finalizer_name(name: &At<'_>) {
    name.obeys(names::is_qualified_name);
    if !name.text().contains('/') && !matches!(name.text(), "kubernetes" | "orphan" | "foregroundDeletion") {
        name.invalid("name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// The `finalize` subresource.
pub(super) fn namespace_finalize(object: &At<'_>) {
    object.at("spec").at("finalizers").items().for_each(|finalizer| finalizer_name(&finalizer));
}

pub(super) fn namespace_status(object: &At<'_>) {
    let phase = object.at("status").at("phase").named(FieldPath::new("status.Phase"));
    if object.at("metadata").at("deletionTimestamp").is_set() {
        if phase.text() != "Terminating" {
            phase.invalid_as(phase.text(), "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
    } else if phase.text() != "Active" {
        phase.invalid_as(phase.text(), "may only be 'Active' if `deletionTimestamp` is empty");
    }
}

pub(super) fn node(object: &At<'_>) {
    let spec = object.at("spec");
    scheduling::taints(&spec.at("taints").named(FieldPath::new("metadata.taints")));
    node_resources(object);
    let ranges = spec.at("podCIDRs");
    ranges.items().for_each(|range| service::cidr(&range));
    let all = ranges.strings();
    if all.len() > 1 {
        let v6 = all.iter().filter(|range| range.contains(':')).count();
        if all.len() > 2 || v6 != 1 {
            ranges.invalid("may specify no more than one CIDR for each IP family");
        }
        let mut seen = BTreeSet::new();
        ranges.items().filter(|range| !seen.insert(range.text())).for_each(|range| range.duplicate());
    }
}

fn node_resources(object: &At<'_>) {
    for list in ["capacity", "allocatable"] {
        let list = object.at("status").at(list);
        for (resource, value) in list.entries() {
            requirements::quantity_value(resource, &value.named(list.path.child(resource)));
        }
    }
}

pub(super) fn node_update(object: &At<'_>, old: &At<'_>) {
    node_resources(object);
    let addresses = object.at("status").at("addresses");
    let mut seen = Vec::new();
    for address in addresses.items() {
        if seen.contains(&address.value) {
            address.duplicate();
        }
        seen.push(address.value);
    }
    let (spec, before) = (object.at("spec"), old.at("spec"));
    if before.at("podCIDRs").len() > 0 && before.at("podCIDRs").value != spec.at("podCIDRs").value {
        spec.at("podCIDRs").forbidden("node updates may not change podCIDR except from \"\" to valid");
    }
    if before.at("providerID").is_full() && before.at("providerID").value != spec.at("providerID").value {
        spec.at("providerID").forbidden("node updates may not change providerID except from \"\" to valid");
    }
    scheduling::taints(&spec.at("taints").named(FieldPath::new("metadata.taints")));
}

fn quota_name(resource: &str, at: &At<'_>) {
    if requirements::name(resource, at) && !resource.contains('/') {
        let standard = matches!(
            resource,
            "cpu"
                | "memory"
                | "ephemeral-storage"
                | "pods"
                | "resourcequotas"
                | "services"
                | "replicationcontrollers"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        ) || resource.starts_with("requests.")
            || resource.starts_with("limits.")
            || resource.starts_with("hugepages-");
        if !standard {
            at.invalid_as(resource, "must be a standard resource for quota");
        }
    }
}

pub(super) fn resource_quota(object: &At<'_>) {
    for path in [["spec", "hard"], ["status", "hard"], ["status", "used"]] {
        for (resource, value) in object.at(path[0]).at(path[1]).entries() {
            quota_name(resource, &value);
            requirements::quantity_value(resource, &value);
        }
    }
    const SCOPES: [&str; 7] = [
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "CrossNamespacePodAffinity",
        "VolumeAttributesClass",
    ];
    let scopes = object.at("spec").at("scopes");
    let all = scopes.strings();
    for scope in &all {
        if !SCOPES.contains(scope) {
            scopes.invalid("unsupported scope");
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| all.contains(scope)) {
            scopes.invalid("conflicting scopes");
        }
    }
    let terms = object.at("spec").at("scopeSelector").at("matchExpressions");
    let terms_path = FieldPath::new("spec.scopeSelector.matchExpressions");
    for term in terms.items() {
        let term = term.named(terms_path.clone());
        let (scope, operator, values) = (term.at("scopeName"), term.at("operator"), term.at("values"));
        if !SCOPES.contains(&scope.text()) {
            scope.invalid("unsupported scope");
        }
        if !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass") && operator.text() != "Exists" {
            operator.invalid(
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => {
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid("not a valid selector operator"),
        }
    }
}

pub(super) fn limit_range(object: &At<'_>) {
    let mut seen = BTreeSet::new();
    for limit in object.at("spec").at("limits").items() {
        let kind = limit.at("type");
        if !kind.text().contains('/') && !matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim") {
            let messages = names::is_qualified_name(kind.text());
            if messages.is_empty() {
                kind.invalid("must be a standard limit type or fully qualified");
            }
            messages.into_iter().for_each(|message| kind.invalid(message));
        }
        if !seen.insert(kind.text()) {
            kind.duplicate();
        }
        limit_range_item(&limit);
    }
}

fn limit_range_item(limit: &At<'_>) {
    let kind = limit.at("type").text();
    let lists = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut resources = BTreeSet::new();
    for list in lists {
        let values = limit.at(list);
        if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
            if values.len() > 0 {
                values.forbidden("may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (resource, value) in values.entries() {
            if matches!(kind, "Pod" | "Container") {
                requirements::container_name(resource, &value);
            } else {
                requirements::name(resource, &value);
            }
            resources.insert(resource);
        }
    }
    let storage = |list: &str| limit.at(list).at("storage").is_set();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        limit.at("limits").required("either minimum or maximum storage value is required, but neither was provided");
    }
    for resource in resources {
        let at = |list: &str| limit.at(list).at(resource).named(limit.at(list).path.key(resource));
        let order = |low: &str, high: &str, shown: &At<'_>, words: [&str; 2], low_in_front: bool| {
            let (Some(small), Some(large)) = (parse(&at(low)), parse(&at(high))) else { return };
            if small > large {
                let relation = if low_in_front { "greater" } else { "less" };
                shown.invalid_as(shown.value.clone(), format!("{} value {small} is {relation} than {} value {large}", words[0], words[1]));
            }
        };
        order("min", "max", &at("min"), ["min", "max"], true);
        order("min", "defaultRequest", &at("defaultRequest"), ["min", "default request"], true);
        order("defaultRequest", "max", &at("defaultRequest"), ["default request", "max"], true);
        order("defaultRequest", "default", &at("defaultRequest"), ["default request", "default limit"], true);
        order("min", "default", &at("default"), ["min", "default"], true);
        order("default", "max", &at("default"), ["default", "max"], true);
        if let Some(ratio) = parse(&at("maxLimitRequestRatio"))
            && ratio.as_f64() < 1.0
        {
            at("maxLimitRequestRatio").invalid_as(ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
    }
}

/// Events name something in their own namespace, or nothing that has one.
pub(super) fn event(object: &At<'_>) {
    let (involved, meta) = (object.at("involvedObject"), object.at("metadata"));
    let regarding = object.at("regarding");
    let about = if regarding.is_set() { regarding } else { involved };
    let (theirs, ours) = (about.at("namespace"), meta.at("namespace").text());
    if theirs.text().is_empty() {
        if !matches!(ours, "default" | "kube-system") {
            theirs.invalid_as("", "does not match event.namespace");
        }
    } else if theirs.text() != ours {
        theirs.invalid("does not match event.namespace");
    }
}

/// The `binding` subresource of a pod.
pub(super) fn binding(object: &At<'_>) {
    let target = object.at("target");
    if target.at("kind").is_full() && target.at("kind").text() != "Node" {
        target.at("kind").not_supported(&["Node", "<empty>"]);
    }
    if target.at("name").text().is_empty() {
        target.at("name").required("");
    }
}
