//! CSINodes.

use serde_json::{Value, json};

use super::parameters::csi_driver_name;
use crate::default::{Lit::*, Set, fill};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

/// The CSI drivers of a node.
pub(crate) struct CsiNode;

impl Kind for CsiNode {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "drivers", Null)]);
    }

    fn validate(&self, object: &At<'_>) {
        csi_node(object);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Drivers:i|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(cells.list(&["spec", "drivers"]).len()), cells.age()]
    }
}

fn csi_node(object: &At<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for driver in object.at("spec").at("drivers").items() {
        csi_driver_name(&driver.at("name"));
        let id = driver.at("nodeID");
        if id.text().is_empty() {
            id.required("");
        } else if id.len() > 256 {
            id.invalid("must be 256 characters or less");
        }
        if driver.at("allocatable").at("count").int().is_some_and(|count| count < 0) {
            driver.at("allocatable").at("count").non_negative();
        }
        let mut keys = std::collections::BTreeSet::new();
        for key in driver.at("topologyKeys").items() {
            if !keys.insert(key.text()) {
                key.named(driver.at("topologyKeys").path.clone()).duplicate();
            }
            key.named(driver.at("topologyKeys").path.clone()).must_obey(names::is_qualified_name);
        }
        if !seen.insert(driver.at("name").text()) {
            driver.at("name").duplicate();
        }
    }
}
