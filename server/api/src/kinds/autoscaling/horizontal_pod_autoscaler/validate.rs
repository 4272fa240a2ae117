//! Validation of autoscalers. Upstream: `pkg/apis/autoscaling/validation`.

use crate::kinds::core::pod::requirements;
use crate::names;
use crate::validate::{At, same};

fn target_reference(reference: &At<'_>) {
    for field in ["kind", "name"] {
        reference.at(field).must_obey(names::is_path_segment_name);
    }
}

/// `old` is what is stored: a target that was accepted once stays acceptable.
pub(crate) fn autoscaler(object: &At<'_>, old: Option<&At<'_>>) {
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
    let positive = |at: &At<'_>| requirements::parse(at).is_none_or(|amount| amount.sign() > 0);
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
    if rules.at("policies").is_empty() {
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
