//! Job and CronJob.

use serde_json::{Value, json};

use super::at::{At, same};
use super::{metadata, pod, schedule};

const INDEXED_MAX_PARALLELISM: i64 = 100_000;

pub(super) fn job(object: &At<'_>) {
    generated_selector(object);
    let spec = object.at("spec");
    job_spec(&spec);
    let selector = spec.at("selector");
    if selector.is_set() {
        metadata::selector(&selector);
    } else {
        selector.required("");
    }
    let labels = spec.at("template").at("metadata").at("labels");
    if !metadata::selects(selector.value, &labels) {
        labels.invalid_as(labels.value.clone(), "`selector` does not match template `labels`");
    }
}

/// A Job selects its pods by its own UID, unless its author takes that over.
fn generated_selector(object: &At<'_>) {
    let spec = object.at("spec");
    if spec.at("manualSelector").flag() || !spec.at("selector").is_set() {
        return;
    }
    let meta = object.at("metadata");
    let uid = meta.at("uid").text();
    if uid.is_empty() {
        meta.at("uid").required("");
    }
    let labels = spec.at("template").at("metadata").at("labels");
    let wanted = [("batch.kubernetes.io/controller-uid", uid), ("batch.kubernetes.io/job-name", meta.at("name").text())];
    for (key, value) in wanted {
        let found = labels.at(key).named(labels.path.key(key));
        if !found.is_set() {
            found.required(&format!("must be '{value}'"));
        } else if found.text() != value {
            found.invalid_as(labels.value.clone(), format!("must be '{value}'"));
        }
    }
    let generated = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let legacy = json!({"matchLabels": {"controller-uid": uid}});
    let selector = spec.at("selector");
    if !same(selector.value, &generated) && !same(selector.value, &legacy) {
        selector.invalid("`selector` not auto-generated");
    }
}

fn job_spec(spec: &At<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.at(field).non_negative();
    }
    let mode = spec.at("completionMode");
    let indexed = mode.text() == "Indexed";
    mode.may_be_one_of(&["NonIndexed", "Indexed"]);
    if indexed {
        if !spec.at("completions").is_set() {
            spec.at("completions").required("when completion mode is Indexed");
        }
        if spec.at("parallelism").int().is_some_and(|count| count > INDEXED_MAX_PARALLELISM) {
            spec.at("parallelism").invalid("must be less than or equal to 100000 when completion mode is Indexed");
        }
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.at(field).is_set() {
                spec.at(field).invalid("requires indexed completion mode");
            }
        }
    }
    if spec.at("podFailurePolicy").is_set() {
        failure_policy(spec);
    }
    spec.at("podReplacementPolicy").may_be_one_of(&["Failed", "TerminatingOrFailed"]);
    template(spec);
}

fn template(spec: &At<'_>) {
    pod::template(&spec.at("template"));
    let policy = spec.at("template").at("spec").at("restartPolicy");
    match policy.text() {
        "OnFailure" if spec.at("podFailurePolicy").is_set() => {
            policy.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        "" | "Always" => policy.required("valid values: \"OnFailure\", \"Never\""),
        _ => policy.not_supported(&["OnFailure", "Never"]),
    }
}

fn failure_policy(spec: &At<'_>) {
    let rules = spec.at("podFailurePolicy").at("rules");
    if rules.len() > 20 {
        rules.errors.push(crate::field::FieldError::too_many(&rules.path, rules.len(), 20));
    }
    for rule in rules.items() {
        let action = rule.at("action");
        action.one_of(&["Count", "FailIndex", "FailJob", "Ignore"]);
        let (codes, conditions) = (rule.at("onExitCodes"), rule.at("onPodConditions"));
        if codes.is_set() {
            codes.at("operator").one_of(&["In", "NotIn"]);
            let values = codes.at("values");
            if values.len() == 0 {
                values.invalid("at least one value is required");
            }
            if codes.at("operator").text() == "In" {
                for value in values.items().filter(|value| value.int() == Some(0)) {
                    value.invalid("must not be 0 for the In operator");
                }
            }
        }
        for condition in conditions.items() {
            condition.at("type").obeys(crate::names::is_qualified_name);
            condition.at("status").one_of(&["False", "True", "Unknown"]);
        }
        match (codes.is_set(), conditions.len() > 0) {
            (true, true) => rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

/// What a Job is does not change while it runs.
pub(super) fn job_update(object: &At<'_>, old: &At<'_>) {
    let (spec, before) = (object.at("spec"), old.at("spec"));
    job_spec(&spec);
    spec.at("selector").immutable(&before.at("selector"));
    let elastic = spec.at("completionMode").text() == "Indexed"
        && spec.at("completions").value == spec.at("parallelism").value
        && before.at("completions").value == before.at("parallelism").value;
    if !elastic {
        spec.at("completions").immutable(&before.at("completions"));
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.at(field).immutable(&before.at(field));
    }
    // A suspended Job that never started may still be told where to run.
    let never_started = before.at("suspend").flag() && !old.at("status").at("startTime").is_set();
    let template = spec.at("template");
    if never_started {
        let strip = |template: &Value| {
            let mut template = template.clone();
            for path in [
                "/metadata/labels",
                "/metadata/annotations",
                "/spec/nodeSelector",
                "/spec/affinity",
                "/spec/tolerations",
                "/spec/schedulingGates",
            ] {
                if let Some(value) = template.pointer_mut(path) {
                    *value = Value::Null;
                }
            }
            template
        };
        if !same(&strip(template.value), &strip(before.at("template").value)) {
            template.invalid("field is immutable");
        }
    } else {
        template.immutable(&before.at("template"));
    }
}

pub(super) fn cron_job(object: &At<'_>, old: Option<&At<'_>>) {
    let spec = object.at("spec");
    let schedule = spec.at("schedule");
    let changed = old.is_none_or(|old| old.at("spec").at("schedule").value != schedule.value);
    if schedule.text().is_empty() {
        schedule.required("");
    } else {
        if let Err(message) = schedule::parse(schedule.text()) {
            schedule.invalid(message);
        }
        if changed && schedule.text().contains("TZ") {
            schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.at("startingDeadlineSeconds").non_negative();
    let zone = spec.at("timeZone");
    if zone.is_set() {
        schedule::time_zone(&zone);
    }
    spec.at("concurrencyPolicy").one_of(&["Allow", "Forbid", "Replace"]);
    spec.at("successfulJobsHistoryLimit").non_negative();
    spec.at("failedJobsHistoryLimit").non_negative();
    let template = spec.at("jobTemplate").at("spec");
    job_spec(&template);
    if template.at("selector").is_set() {
        template.at("selector").invalid("`selector` will be auto-generated");
    }
    if template.at("manualSelector").flag() {
        template.at("manualSelector").not_supported(&["nil", "false"]);
    }
}

/// Eleven characters are left for the suffix of the Jobs.
pub(super) fn cron_job_name(name: &str) -> Vec<String> {
    let mut messages = crate::names::is_dns1123_subdomain(name);
    if name.len() > 52 {
        messages.push("must be no more than 52 characters".to_owned());
    }
    messages
}
