//! LimitRanges.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod::requirements::{self, parse};
use crate::default::{Lit::*, Object, Set, each, fill, object as child, text};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// Bounds and defaults of resources in a namespace.
pub(crate) struct LimitRange;

impl Kind for LimitRange {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "ratio against max/min; equal default and request of resources that can't be overcommitted"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "limits", Null)]);
        each(object, "spec.limits[]", &mut default_item);
    }

    fn validate(&self, object: &At<'_>) {
        limit_range(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Created At:d")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), cells.created_at()]
    }
}

/// For containers: the default limit comes from max, the default request from the default limit, or from min if there is none.
fn default_item(item: &mut Object) {
    if text(item, "type") != "Container" {
        return;
    }
    for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let Some(Value::Object(from)) = item.get(source).cloned() else { continue };
        let Some(into) = child(item, target) else { continue };
        for (name, quantity) in from {
            into.entry(name).or_insert(quantity);
        }
    }
}

fn limit_range(object: &At<'_>) {
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
            if !values.is_empty() {
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
