//! PodDisruptionBudgets.

use serde_json::{Value, json};

use crate::default::{Lit::*, Set, fill};
use crate::field::{BadValue, FieldError};
use crate::kinds::text::{or, plain};
use crate::kinds::workload::{at_most_all, int_or_percent};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, NameRule, metadata};

const BUDGET: &[Set] = &[
    Set("", "spec", Obj),
    Set("", "status", Obj),
    Set("status", "currentHealthy", I(0)),
    Set("status", "desiredHealthy", I(0)),
    Set("status", "disruptionsAllowed", I(0)),
    Set("status", "expectedPods", I(0)),
];

/// How many pods may be missing at a time.
pub(crate) struct PodDisruptionBudget;

impl Kind for PodDisruptionBudget {
    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, BUDGET);
    }

    fn validate(&self, object: &At<'_>) {
        disruption_budget(object);
    }

    fn validate_status(&self, object: &At<'_>, _old: &At<'_>) {
        disruption_budget_status(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Min Available|Max Unavailable|Allowed Disruptions:i|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![
            cells.name(),
            json!(or(plain(cells.at(&["spec", "minAvailable"])), "N/A")),
            json!(or(plain(cells.at(&["spec", "maxUnavailable"])), "N/A")),
            json!(cells.int(&["status", "disruptionsAllowed"])),
            cells.age(),
        ]
    }
}

fn disruption_budget(object: &At<'_>) {
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

fn disruption_budget_status(object: &At<'_>) {
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        object.at("status").at(field).non_negative();
    }
}
