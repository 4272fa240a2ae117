//! What a pod starts with, its quality of service, and how long it may take to die.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::meta;
use crate::quantity::{self, Quantity};

/// Phases of a pod that matter to deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not finished.
    Live,
    /// Succeeded or Failed.
    Finished,
}

impl PodPhase {
    /// From `status.phase`.
    pub fn of(pod: &Value) -> PodPhase {
        match meta::str_at(pod, &["status", "phase"]) {
            "Succeeded" | "Failed" => PodPhase::Finished,
            _ => PodPhase::Live,
        }
    }
}

pub(super) fn prepare_for_create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    if !meta::list_at(pod, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null,
            "lastTransitionTime": null, "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    if let Some(map) = pod.as_object_mut() {
        map.insert("status".to_owned(), status);
    }
}

/// A kubelet that doesn't repeat the quality of service didn't mean to change it.
pub(super) fn prepare_for_status_update(pod: &mut Value, old: &Value) {
    if meta::str_at(pod, &["status", "qosClass"]).is_empty()
        && let Some(class) = meta::get(old, &["status", "qosClass"])
    {
        meta::map_at(pod, "status").insert("qosClass".to_owned(), class.clone());
    }
}

/// At once for a pod that is on no node or has finished; else what was asked for, or what the pod asks for.
pub(super) fn grace_period_secs(pod: &Value, requested: Option<i64>) -> i64 {
    let own = meta::i64_at(pod, &["spec", "terminationGracePeriodSeconds"]);
    let seconds = requested.or(own).unwrap_or(0);
    if meta::str_at(pod, &["spec", "nodeName"]).is_empty() || PodPhase::of(pod) == PodPhase::Finished {
        0
    } else if seconds < 0 {
        1
    } else {
        seconds
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the cpu and memory that containers request and are limited to.
pub fn qos_class(pod: &Value) -> &'static str {
    let pod_level = meta::get(pod, &["spec", "resources"]).filter(|resources| {
        ["requests", "limits"].iter().any(|kind| resources.get(*kind).and_then(Value::as_object).is_some_and(|map| !map.is_empty()))
    });
    let parts: Vec<&Value> = match pod_level {
        Some(resources) => vec![resources],
        None => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| meta::list_at(pod, &["spec", list]))
            .map(|container| container.get("resources").unwrap_or(&Value::Null))
            .collect(),
    };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut all_limited = true;
    for part in parts {
        sum(part.get("requests"), &mut requests);
        let limited = sum(part.get("limits"), &mut limits);
        all_limited &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests.len() == limits.len() && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds cpu and memory; returns how many of the two there were. Zero counts as not said.
fn sum(list: Option<&Value>, into: &mut BTreeMap<&'static str, Quantity>) -> usize {
    let mut count = 0;
    for name in ["cpu", "memory"] {
        let Some(amount) = list.and_then(|list| list.get(name)).and_then(|value| quantity::from_json(value).ok()) else {
            continue;
        };
        if amount.sign() > 0 {
            count += 1;
            let total = into.get(name).map_or_else(|| amount, |have| have.plus(&amount));
            into.insert(name, total);
        }
    }
    count
}
