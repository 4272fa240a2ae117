//! DeviceClasses.

use serde_json::Value;

use crate::default::{Lit::Obj, Set, fill};
use crate::resource::Kind;

/// A kind of device.
pub(crate) struct DeviceClass;

impl Kind for DeviceClass {
    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        true
    }

    fn missing_behaviour(&self) -> &'static str {
        "selectors and configuration"
    }

    fn default(&self, _version: &str, object: &mut Value) {
        fill(object, &[Set("", "spec", Obj)]);
    }
}
