//! A pod's quality of service class. Upstream: `pkg/apis/core/v1/helper/qos`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::meta;
use crate::quantity::{self, Quantity};

/// `Guaranteed`, `Burstable` or `BestEffort`, by the cpu and memory that containers request and are limited to.
pub(crate) fn class(pod: &Value) -> &'static str {
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
