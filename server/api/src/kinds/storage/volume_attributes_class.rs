//! VolumeAttributesClasses.

use serde_json::{Value, json};

use super::parameters::{class_name, csi_driver_name, parameters};
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, same};

/// Changeable properties of volumes.
pub(crate) struct VolumeAttributesClass;

impl Kind for VolumeAttributesClass {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &At<'_>) {
        attributes_class(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        attributes_class(object);
        attributes_class_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|DriverName|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![class_name(cells, &["storage.alpha.kubernetes.io/is-default-class"]), json!(cells.text(&["driverName"])), cells.age()]
    }
}

fn attributes_class(object: &At<'_>) {
    csi_driver_name(&object.at("driverName"));
    parameters(&object.at("parameters"), false);
}

fn attributes_class_update(object: &At<'_>, old: &At<'_>) {
    for field in ["driverName", "parameters"] {
        if !same(object.at(field).value, old.at(field).value) {
            object.at(field).forbidden(format!("updates to {field} are forbidden."));
        }
    }
}
