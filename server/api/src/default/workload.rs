//! Defaults of the workload kinds: apps, batch, autoscaling and ReplicationController.

use serde_json::{Value, json};

use super::walk::{Lit::*, Object, Row, each, fill, object as child, set, text, unset};

const DEPLOYMENT: &[Row] = &[
    Row("spec", "replicas", I(1)),
    Row("spec.strategy", "type", S("RollingUpdate")),
    Row("spec", "revisionHistoryLimit", I(10)),
    Row("spec", "progressDeadlineSeconds", I(600)),
];

const STATEFUL_SET: &[Row] = &[
    Row("spec", "podManagementPolicy", S("OrderedReady")),
    Row("spec.updateStrategy", "type", S("RollingUpdate")),
    Row("spec", "persistentVolumeClaimRetentionPolicy", Obj),
    Row("spec.persistentVolumeClaimRetentionPolicy", "whenDeleted", S("Retain")),
    Row("spec.persistentVolumeClaimRetentionPolicy", "whenScaled", S("Retain")),
    Row("spec", "replicas", I(1)),
    Row("spec", "revisionHistoryLimit", I(10)),
    Row("spec.volumeClaimTemplates[]", "apiVersion", S("v1")),
    Row("spec.volumeClaimTemplates[]", "kind", S("PersistentVolumeClaim")),
    Row("spec.volumeClaimTemplates[].spec", "volumeMode", S("Filesystem")),
    Row("spec.volumeClaimTemplates[].status", "phase", S("Pending")),
];

const JOB: &[Row] = &[
    Row("spec", "completionMode", S("NonIndexed")),
    Row("spec", "suspend", B(false)),
    Row("spec.podFailurePolicy.rules[].onPodConditions[]", "status", S("True")),
];

const CRON_JOB: &[Row] = &[
    Row("spec", "concurrencyPolicy", S("Allow")),
    Row("spec", "suspend", B(false)),
    Row("spec", "successfulJobsHistoryLimit", I(3)),
    Row("spec", "failedJobsHistoryLimit", I(1)),
];

pub(super) fn apply(version: &str, kind: &str, object: &mut Value) {
    match kind {
        "Deployment" => {
            fill(object, DEPLOYMENT);
            rolling_update(object, "spec.strategy", &[("maxUnavailable", json!("25%")), ("maxSurge", json!("25%"))]);
        }
        "ReplicaSet" => fill(object, &[Row("spec", "replicas", I(1))]),
        "DaemonSet" => {
            fill(object, &[Row("spec.updateStrategy", "type", S("RollingUpdate")), Row("spec", "revisionHistoryLimit", I(10))]);
            rolling_update(object, "spec.updateStrategy", &[("maxUnavailable", json!(1)), ("maxSurge", json!(0))]);
        }
        "StatefulSet" => {
            fill(object, STATEFUL_SET);
            rolling_update(object, "spec.updateStrategy", &[("partition", json!(0))]);
        }
        "Job" => job(object),
        "CronJob" => fill(object, CRON_JOB),
        "HorizontalPodAutoscaler" => autoscaler(version, object),
        _ => {}
    }
}

/// A ReplicationController takes selector and labels from its template.
pub(super) fn replication_controller(object: &mut Value) {
    fill(object, &[Row("spec", "replicas", I(1))]);
    let labels = template_labels(object);
    let Some(labels) = labels else { return };
    each(object, "spec", &mut |spec| {
        if unset(spec, "selector") {
            spec.insert("selector".to_owned(), labels.clone());
        }
    });
    labels_from(object, labels);
}

fn template_labels(object: &Value) -> Option<Value> {
    object.pointer("/spec/template/metadata/labels").filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty())).cloned()
}

fn labels_from(object: &mut Value, labels: Value) {
    each(object, "metadata", &mut |meta| {
        if unset(meta, "labels") {
            meta.insert("labels".to_owned(), labels.clone());
        }
    });
}

fn rolling_update(object: &mut Value, path: &str, defaults: &[(&str, Value)]) {
    each(object, path, &mut |strategy| {
        if text(strategy, "type") != "RollingUpdate" {
            return;
        }
        let Some(rolling) = child(strategy, "rollingUpdate") else { return };
        for (key, value) in defaults {
            if rolling.get(*key).is_none_or(Value::is_null) {
                rolling.insert((*key).to_owned(), value.clone());
            }
        }
    });
}

fn job(object: &mut Value) {
    each(object, "spec", &mut |spec| {
        let given = |spec: &Object, key: &str| spec.get(key).is_some_and(|value| !value.is_null());
        // Completions alone stay unset when parallelism is given: that is a work queue.
        if !given(spec, "completions") && !given(spec, "parallelism") {
            set(spec, "completions", I(1));
        }
        set(spec, "parallelism", I(1));
        let limit = if given(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        set(spec, "backoffLimit", I(limit));
        let replacement = if given(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set(spec, "podReplacementPolicy", S(replacement));
    });
    fill(object, JOB);
    if let Some(labels) = template_labels(object) {
        labels_from(object, labels);
    }
}

fn autoscaler(version: &str, object: &mut Value) {
    fill(object, &[Row("spec", "minReplicas", I(1))]);
    if version != "v2" {
        return;
    }
    each(object, "spec", &mut |spec| {
        if unset(spec, "metrics") {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
            spec.insert("metrics".to_owned(), metric);
        }
        if let Some(Value::Object(behavior)) = spec.get_mut("behavior") {
            scaling_rules(
                behavior,
                "scaleUp",
                Some(0),
                json!([
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]),
            );
            scaling_rules(behavior, "scaleDown", None, json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        }
    });
}

fn scaling_rules(behavior: &mut Object, direction: &str, window_secs: Option<i64>, policies: Value) {
    let Some(rules) = child(behavior, direction) else { return };
    if let Some(seconds) = window_secs {
        set(rules, "stabilizationWindowSeconds", I(seconds));
    }
    set(rules, "selectPolicy", S("Max"));
    if rules.get("policies").is_none_or(Value::is_null) {
        rules.insert("policies".to_owned(), policies);
    }
}
