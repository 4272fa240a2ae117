//! RuntimeClasses.

use serde_json::{Value, json};

use crate::kinds::core::pod::{requirements, scheduling};
use crate::names;
use crate::resource::{Cells, Column, Kind};
use crate::validate::{At, metadata};

/// How containers are run.
pub(crate) struct RuntimeClass;

impl Kind for RuntimeClass {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn accepts_bare_finalizers(&self) -> bool {
        true
    }

    fn validate(&self, object: &At<'_>) {
        runtime_class(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        runtime_class(object);
        runtime_class_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Handler|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![cells.name(), json!(cells.text(&["handler"])), cells.age()]
    }
}

fn runtime_class(object: &At<'_>) {
    object.at("handler").must_obey(names::is_dns1123_label);
    for (resource, value) in object.at("overhead").at("podFixed").entries() {
        requirements::container_name(resource, &value);
        requirements::quantity_value(resource, &value);
    }
    metadata::labels(&object.at("scheduling").at("nodeSelector"));
    scheduling::tolerations(&object.at("scheduling").at("tolerations"));
}

fn runtime_class_update(object: &At<'_>, old: &At<'_>) {
    object.at("handler").immutable(&old.at("handler"));
}
