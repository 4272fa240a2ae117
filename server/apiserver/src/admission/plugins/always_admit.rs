//! AlwaysAdmit: a name without effect, deprecated upstream. It is there so that a configuration that has it still starts.

use crate::admission::plugin::{Phase, Plugin};
use crate::admission::request::AdmissionRequest;

/// The plugin.
pub struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn phases(&self) -> &'static [Phase] {
        &[]
    }

    fn handles(&self, _request: &AdmissionRequest) -> bool {
        false
    }
}
