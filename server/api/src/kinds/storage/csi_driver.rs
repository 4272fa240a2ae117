//! CSIDrivers.

use serde_json::{Value, json};

use super::parameters::csi_driver_name;
use crate::default::{Lit::*, Set, fill};
use crate::kinds::text::{NONE, UNSET, or, plain, strings};
use crate::resource::{Cells, Column, Kind};
use crate::validate::At;

const CSI_DRIVER: &[Set] = &[
    Set("spec", "attachRequired", B(true)),
    Set("spec", "podInfoOnMount", B(false)),
    Set("spec", "storageCapacity", B(false)),
    Set("spec", "fsGroupPolicy", S("ReadWriteOnceWithFSType")),
    Set("spec", "volumeLifecycleModes", L("Persistent")),
    Set("spec", "requiresRepublish", B(false)),
    Set("spec", "seLinuxMount", B(false)),
];

/// What a CSI driver can do.
pub(crate) struct CsiDriver;

impl Kind for CsiDriver {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        false
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj)]);
        fill(object, CSI_DRIVER);
    }

    fn validate(&self, object: &At<'_>) {
        csi_driver(object);
    }

    fn validate_update(&self, object: &At<'_>, old: &At<'_>) {
        csi_driver(object);
        csi_driver_update(object, old);
    }

    fn columns(&self) -> Vec<Column> {
        Column::parse("Name#|AttachRequired:b|PodInfoOnMount:b|StorageCapacity:b|TokenRequests|RequiresRepublish:b|Modes|Age")
    }

    fn cells(&self, cells: &Cells<'_>) -> Vec<Value> {
        let audiences: Vec<String> = cells.list(&["spec", "tokenRequests"]).iter().map(|request| plain(&request["audience"])).collect();
        let tokens = if cells.at(&["spec", "tokenRequests"]).is_null() { UNSET.to_owned() } else { audiences.join(",") };
        vec![
            cells.name(),
            json!(cells.at(&["spec", "attachRequired"]) != &Value::Bool(false)),
            cells.flag(&["spec", "podInfoOnMount"]),
            cells.flag(&["spec", "storageCapacity"]),
            json!(tokens),
            cells.flag(&["spec", "requiresRepublish"]),
            json!(or(strings(cells.at(&["spec", "volumeLifecycleModes"])).join(","), NONE)),
            cells.age(),
        ]
    }
}

fn csi_driver(object: &At<'_>) {
    csi_driver_name(&object.at("metadata").at("name"));
    let spec = object.at("spec");
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
        if !spec.at(field).is_set() {
            spec.at(field).required("");
        }
    }
    spec.at("fsGroupPolicy").may_be_one_of(&["File", "None", "ReadWriteOnceWithFSType"]);
    let mut audiences = std::collections::BTreeSet::new();
    for request in spec.at("tokenRequests").items() {
        if !audiences.insert(request.at("audience").text()) {
            request.at("audience").duplicate();
        }
        let seconds = request.at("expirationSeconds");
        match seconds.int() {
            Some(value) if value < 600 => seconds.invalid("may not specify a duration less than 10 minutes"),
            Some(value) if value > 1 << 32 => seconds.invalid("may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    }
    for mode in spec.at("volumeLifecycleModes").items() {
        mode.named(spec.at("volumeLifecycleModes").path.clone()).may_be_one_of(&["Ephemeral", "Persistent"]);
    }
}

fn csi_driver_update(object: &At<'_>, old: &At<'_>) {
    for field in ["attachRequired", "fsGroupPolicy", "volumeLifecycleModes"] {
        object.at("spec").at(field).immutable(&old.at("spec").at(field));
    }
}
