//! VolumeAttachments.

use serde_json::{Value, json};

use super::parameters::csi_driver_name;
use crate::default::{Lit::*, Set, fill};
use crate::names;
use crate::resource::{Cells, Column, Kind, carry_own_metadata};
use crate::time::Timestamp;
use crate::validate::At;

/// A volume on its way to a node.
pub(crate) struct VolumeAttachment;

impl Kind for VolumeAttachment {
    fn counts_generation(&self) -> bool {
        false
    }

    fn missing_behaviour(&self) -> &'static str {
        "inline volumes and the status"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj), Set("spec", "source", Obj), Set("", "status", Obj), Set("status", "attached", B(false))]);
    }

    fn prepare_for_status_update(&self, object: &mut Value, old: &Value, _now: Timestamp) {
        carry_own_metadata(object, old);
    }

    fn kept_by_status(&self) -> &'static [&'static str] {
        &["metadata", "spec"]
    }

    fn validate(&self, object: &At<'_>) {
        attachment(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        attachment(object);
        attachment_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|Attacher#|PV|Node|Attached:b|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        vec![
            cells.name(),
            json!(cells.text(&["spec", "attacher"])),
            json!(cells.text(&["spec", "source", "persistentVolumeName"])),
            json!(cells.text(&["spec", "nodeName"])),
            cells.flag(&["status", "attached"]),
            cells.age(),
        ]
    }
}

fn attachment(object: &At<'_>) {
    let spec = object.at("spec");
    csi_driver_name(&spec.at("attacher"));
    let source = spec.at("source");
    let (inline, name) = (source.at("inlineVolumeSpec"), source.at("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => source.required("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (true, true) => source.forbidden("must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        _ => name.may_obey(names::is_dns1123_subdomain),
    }
    spec.at("nodeName").obeys(names::is_dns1123_subdomain);
}

fn attachment_update(object: &At<'_>, old: &At<'_>) {
    object.at("spec").immutable(&old.at("spec"));
}
