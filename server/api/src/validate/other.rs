//! Smaller kinds: budgets, autoscalers, classes, certificates, leases, and the bodies of subresources.

use serde_json::{Value, json};

use super::at::{At, same};
use super::workload::{at_most_all, int_or_percent};
use super::{metadata, scheduling};
use crate::field::{BadValue, FieldError};
use crate::names;

const SYSTEM_PRIORITY_MAX_USER: i64 = 1_000_000_000;

pub(super) fn disruption_budget(object: &At<'_>) {
    let spec = object.at("spec");
    let (available, unavailable) = (spec.at("minAvailable"), spec.at("maxUnavailable"));
    if available.is_set() && unavailable.is_set() {
        // Upstream shows its own struct, in its own order.
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            available.value,
            spec.at("selector").value,
            unavailable.value,
            spec.at("unhealthyPodEvictionPolicy").value
        );
        let mut error =
            FieldError::invalid(&spec.path, Value::Null, format!("{shown}: minAvailable and maxUnavailable cannot be both set"));
        error.bad_value = BadValue::Omitted;
        spec.errors.push(error);
    }
    for amount in [&available, &unavailable] {
        int_or_percent(amount);
        at_most_all(amount);
    }
    metadata::selector(&spec.at("selector"));
    spec.at("unhealthyPodEvictionPolicy").may_be_one_of(&["AlwaysAllow", "IfHealthyBudget"]);
}

pub(super) fn disruption_budget_status(object: &At<'_>) {
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        object.at("status").at(field).non_negative();
    }
}

fn target_reference(reference: &At<'_>) {
    for field in ["kind", "name"] {
        reference.at(field).must_obey(names::is_path_segment_name);
    }
}

/// `old` is what is stored: a target that was accepted once stays acceptable.
pub(super) fn autoscaler(object: &At<'_>, old: Option<&At<'_>>) {
    let spec = object.at("spec");
    let (least, most) = (spec.at("minReplicas"), spec.at("maxReplicas"));
    if least.int().is_some_and(|count| count < 1) {
        least.invalid("must be greater than or equal to 1");
    }
    let maximum = most.int().unwrap_or(0);
    if maximum < 1 {
        most.invalid_as(maximum, "must be greater than 0");
    }
    if least.int().is_some_and(|count| maximum < count) {
        most.invalid_as(maximum, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.at("scaleTargetRef");
    target_reference(&target);
    let group = target.at("apiVersion").text().split_once('/').map_or("", |(group, _)| group);
    let known = old.is_some_and(|old| same(old.at("spec").at("scaleTargetRef").value, target.value));
    if group.is_empty() && target.at("kind").text() != "ReplicationController" && !known {
        target.at("apiVersion").invalid_as(target.at("apiVersion").text(), "apiVersion must specify API group");
    }
    for metric in spec.at("metrics").items() {
        metric_spec(&metric);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.at("behavior").at(direction);
        if rules.is_set() {
            scaling_rules(&rules);
        }
    }
}

fn metric_spec(metric: &At<'_>) {
    const KINDS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.at("type");
    if kind.text().is_empty() {
        kind.required("must specify a metric source type");
    }
    if !KINDS.contains(&kind.text()) {
        kind.not_supported(&KINDS);
    }
    let expected = match kind.text() {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        _ => "resource",
    };
    for source in ["object", "external", "pods", "resource", "containerResource"] {
        let source_at = metric.at(source);
        if source_at.is_set() && source != expected {
            source_at.forbidden("must populate the given metric source only");
        }
    }
    let source = metric.at(expected);
    if !source.is_set() {
        source.required("must populate information for the given metric source");
        return;
    }
    match expected {
        "resource" | "containerResource" => {
            if source.at("name").text().is_empty() {
                source.at("name").required("must specify a resource name");
            }
            if expected == "containerResource" {
                source.at("container").must_obey(names::is_dns1123_label);
            }
        }
        _ => {
            source.at("metric").at("name").must_obey(names::is_path_segment_name);
            if expected == "object" {
                target_reference(&source.at("describedObject"));
            }
        }
    }
    metric_target(&source.at("target"), expected);
}

fn metric_target(target: &At<'_>, source: &str) {
    let kind = target.at("type");
    if kind.text().is_empty() {
        kind.required("must specify a metric target type");
    } else if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        kind.invalid("must be either Utilization, Value, or AverageValue");
    }
    let (value, average, share) = (target.at("value"), target.at("averageValue"), target.at("averageUtilization"));
    let positive = |at: &At<'_>| super::requirements::parse(at).is_none_or(|amount| amount.sign() > 0);
    for amount in [&value, &average] {
        if amount.is_set() && !positive(amount) {
            amount.invalid("must be positive");
        }
    }
    if share.int().is_some_and(|percent| percent < 1) {
        share.invalid("must be greater than 0");
    }
    match source {
        "resource" | "containerResource" if !share.is_set() && !average.is_set() => {
            share.required("must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if share.is_set() && average.is_set() => {
            average.forbidden("may not set both a target raw value and a target utilization");
        }
        "pods" if !average.is_set() => average.required("must specify a positive target averageValue"),
        "object" | "external" if !value.is_set() && !average.is_set() => {
            average.required("must set either a target value or averageValue");
        }
        _ => {}
    }
}

fn scaling_rules(rules: &At<'_>) {
    const MAX_WINDOW_SECS: i64 = 3600;
    const MAX_PERIOD_SECS: i64 = 1800;
    let window = rules.at("stabilizationWindowSeconds");
    match window.int() {
        Some(seconds) if seconds < 0 => window.invalid("must be greater than or equal to zero"),
        Some(seconds) if seconds > MAX_WINDOW_SECS => {
            window.invalid(format!("must be less than or equal to {MAX_WINDOW_SECS}"));
        }
        _ => {}
    }
    rules.at("selectPolicy").may_be_one_of(&["Disabled", "Max", "Min"]);
    if rules.at("policies").len() == 0 {
        rules.at("policies").required("must specify at least one Policy");
    }
    for policy in rules.at("policies").items() {
        if !matches!(policy.at("type").text(), "Percent" | "Pods") {
            policy.at("type").not_supported(&["Percent", "Pods"]);
        }
        policy.at("value").positive();
        let period = policy.at("periodSeconds");
        period.positive();
        if period.int().is_some_and(|seconds| seconds > MAX_PERIOD_SECS) {
            period.invalid(format!("must be less than or equal to {MAX_PERIOD_SECS}"));
        }
    }
}

pub(super) fn priority_class(object: &At<'_>) {
    let name = object.at("metadata").at("name");
    let value = object.at("value").int().unwrap_or(0);
    if name.text().starts_with("system-") {
        let known = crate::bootstrap::priority_classes();
        let system = known.iter().find(|class| class["metadata"]["name"] == *name.text());
        let detail = match system {
            None => Some("priority class names with 'system-' prefix are reserved for system use only".to_owned()),
            Some(class) if class["value"] != json!(value) => {
                Some(format!("value of {} PriorityClass must be {}", name.text(), class["value"]))
            }
            Some(_) => None,
        };
        if let Some(detail) = detail {
            name.forbidden(detail);
        }
    } else if value > SYSTEM_PRIORITY_MAX_USER {
        object.at("value").forbidden(format!("maximum allowed value of a user defined priority is {SYSTEM_PRIORITY_MAX_USER}"));
    }
    if object.at("preemptionPolicy").is_set() {
        object.at("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"]);
    }
}

pub(super) fn priority_class_update(object: &At<'_>, old: &At<'_>) {
    if object.at("value").int().unwrap_or(0) != old.at("value").int().unwrap_or(0) {
        object.at("value").forbidden("may not be changed in an update.");
    }
    object.at("preemptionPolicy").immutable(&old.at("preemptionPolicy"));
}

pub(super) fn runtime_class(object: &At<'_>) {
    object.at("handler").must_obey(names::is_dns1123_label);
    for (resource, value) in object.at("overhead").at("podFixed").entries() {
        super::requirements::container_name(resource, &value);
        super::requirements::quantity_value(resource, &value);
    }
    metadata::labels(&object.at("scheduling").at("nodeSelector"));
    scheduling::tolerations(&object.at("scheduling").at("tolerations"));
}

pub(super) fn runtime_class_update(object: &At<'_>, old: &At<'_>) {
    object.at("handler").immutable(&old.at("handler"));
}

pub(super) fn lease(object: &At<'_>) {
    let spec = object.at("spec");
    if spec.at("leaseDurationSeconds").int().is_some_and(|seconds| seconds <= 0) {
        spec.at("leaseDurationSeconds").invalid("must be greater than 0");
    }
    spec.at("leaseTransitions").non_negative();
    let strategy = spec.at("strategy");
    if strategy.is_full() && !strategy.text().contains('/') && strategy.text() != "OldestEmulationVersion" {
        strategy.named(strategy.path.child("strategy")).not_supported(&["OldestEmulationVersion"]);
    }
    if spec.at("preferredHolder").is_full() && !strategy.is_full() {
        spec.at("preferredHolder").forbidden("may only be specified if `strategy` is defined");
    }
}

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(super) fn signing_request(object: &At<'_>) {
    const MIN_SECS: i64 = 600;
    let spec = object.at("spec");
    if !spec.at("request").is_full() {
        spec.at("request").invalid_as(Value::Null, "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = spec.at("usages");
    if usages.len() == 0 {
        usages.required("");
    }
    let mut seen = std::collections::BTreeSet::new();
    for usage in usages.items() {
        if !USAGES.contains(&usage.text()) {
            usage.not_supported(&USAGES);
        }
        if !seen.insert(usage.text()) {
            usage.duplicate();
        }
    }
    signer_name(&spec.at("signerName"));
    if spec.at("expirationSeconds").int().is_some_and(|seconds| seconds < MIN_SECS) {
        spec.at("expirationSeconds").invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
    conditions(object);
}

fn signer_name(name: &At<'_>) {
    if name.text().is_empty() {
        name.required("");
        return;
    }
    match name.text().split_once('/') {
        None => name.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        Some((domain, path)) => {
            names::is_dns1123_subdomain(domain)
                .into_iter()
                .for_each(|message| name.invalid(format!("validating label {domain:?}: {message}")));
            if !domain.contains('.') {
                name.invalid("should be a domain with at least two segments separated by dots");
            }
            names::is_dns1123_subdomain(path).into_iter().for_each(|message| name.invalid(format!("validating label {path:?}: {message}")));
        }
    }
}

fn conditions(object: &At<'_>) {
    let conditions = object.at("status").at("conditions");
    let mut seen = std::collections::BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.at("type");
        if kind.text().is_empty() {
            kind.required("");
        }
        let status = condition.at("status");
        match kind.text() {
            "Approved" | "Denied" | "Failed" => {
                if status.text().is_empty() {
                    status.required("");
                } else if status.text() != "True" {
                    status.not_supported(&["True"]);
                }
            }
            _ => status.may_be_one_of(&["True", "False", "Unknown"]),
        }
        if !seen.insert(kind.text()) {
            kind.duplicate();
        }
    }
    if seen.contains("Approved") && seen.contains("Denied") {
        conditions.invalid("Approved and Denied conditions are mutually exclusive");
    }
}

/// What was asked for stays, and a decision is not taken back.
pub(super) fn signing_request_update(object: &At<'_>, old: &At<'_>) {
    let now = object.at("status").at("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let of = |list: &At<'_>| -> Vec<Value> {
            list.items().filter(|one| one.at("type").text() == kind).map(|one| one.value.clone()).collect()
        };
        let then = old.at("status").at("conditions");
        if of(&then).len() > of(&now).len() {
            now.forbidden(format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    let (certificate, before) = (object.at("status").at("certificate"), old.at("status").at("certificate"));
    if before.is_full() && !same(certificate.value, before.value) {
        certificate.forbidden("updates may not change or remove certificate content");
    }
}

/// The body of `serviceaccounts/token`.
pub(super) fn token_request(object: &At<'_>) {
    let seconds = object.at("spec").at("expirationSeconds");
    match seconds.int() {
        Some(value) if value < 600 => seconds.invalid("may not specify a duration less than 10 minutes"),
        Some(value) if value > 1 << 32 => seconds.invalid("may not specify a duration larger than 2^32 seconds"),
        _ => {}
    }
}

/// The body of `scale`.
pub(super) fn scale(object: &At<'_>) {
    object.at("spec").at("replicas").non_negative();
}

/// `spec.parentRef` of an IPAddress, whose name is the address itself.
pub(super) fn ip_address(object: &At<'_>) {
    let parent = object.at("spec").at("parentRef");
    if !parent.is_set() {
        parent.required("");
        return;
    }
    for field in ["resource", "name"] {
        parent.at(field).must_obey(names::is_path_segment_name);
    }
    parent.at("group").may_obey(names::is_dns1123_subdomain);
    parent.at("namespace").may_obey(names::is_path_segment_name);
}

/// The canonical text of an address.
pub(super) fn ip_address_name(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        _ => vec!["must be a canonical form IP address".to_owned()],
    }
}

pub(super) fn service_cidr(object: &At<'_>) {
    let ranges = object.at("spec").at("cidrs");
    match ranges.len() {
        0 => ranges.required("at least one CIDR required"),
        1 | 2 => {}
        _ => ranges.invalid("may only hold up to 2 values"),
    }
    ranges.items().for_each(|range| super::service::cidr(&range));
    let v6 = ranges.strings().iter().filter(|range| range.contains(':')).count();
    if ranges.len() == 2 && v6 != 1 {
        ranges.invalid("may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64");
    }
}
