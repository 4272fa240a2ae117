//! Validation of a Job's spec, in a Job and in a CronJob.

use crate::kinds::core::pod::spec as pod_spec;
use crate::validate::At;

const INDEXED_MAX_PARALLELISM: i64 = 100_000;

pub(crate) fn job_spec(spec: &At<'_>) {
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
    pod_spec::template(&spec.at("template"));
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
            if values.is_empty() {
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
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, false) => rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}
