//! StorageClasses.

use serde_json::{Value, json};

use super::parameters::{class_name, parameters};
use crate::default::{Lit::S, Set, fill};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, metadata, same};

/// A way to make volumes.
pub(crate) struct StorageClass;

impl Kind for StorageClass {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "reclaimPolicy", S("Delete")), Set("", "volumeBindingMode", S("Immediate"))]);
    }

    fn validate_create(&self, object: &At<'_>) {
        storage_class(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        storage_class_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Provisioner|ReclaimPolicy|VolumeBindingMode|AllowVolumeExpansion|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        const DEFAULT: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        vec![
            class_name(cells, &DEFAULT),
            json!(cells.text(&["provisioner"])),
            cells.text_or(&["reclaimPolicy"], "Delete"),
            cells.text_or(&["volumeBindingMode"], "Immediate"),
            cells.flag(&["allowVolumeExpansion"]),
            cells.age(),
        ]
    }
}

fn storage_class(object: &At<'_>) {
    let provisioner = object.at("provisioner");
    if provisioner.text().is_empty() {
        provisioner.required("");
    } else {
        for message in names::is_qualified_name(&provisioner.text().to_lowercase()) {
            provisioner.invalid(message);
        }
    }
    parameters(&object.at("parameters"), true);
    object.at("reclaimPolicy").may_be_one_of(&["Delete", "Retain"]);
    object.at("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"]);
    for term in object.at("allowedTopologies").items() {
        for requirement in term.at("matchLabelExpressions").items() {
            if requirement.at("values").is_empty() {
                requirement.at("values").required("");
            }
            metadata::label_name(&requirement.at("key"));
        }
    }
}

fn storage_class_update(object: &At<'_>, old: &At<'_>) {
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(object.at(field).value, old.at(field).value) {
            object.at(field).forbidden(format!("updates to {field} are forbidden."));
        }
    }
    object.at("volumeBindingMode").immutable(&old.at("volumeBindingMode"));
}
