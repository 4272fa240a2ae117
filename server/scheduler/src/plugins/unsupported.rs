//! Pods that need what this scheduler cannot place yet wait and say so.

use std::collections::BTreeSet;

use crate::framework::{Plugin, Prepared, Refusal, Snapshot, Wake};
use crate::node_info::PodInfo;

pub(crate) struct Unsupported;

impl Plugin for Unsupported {
    fn name(&self) -> &'static str {
        "Unsupported"
    }

    fn pre_filter(&self, pod: &PodInfo, _snapshot: &Snapshot<'_>) -> Result<Option<BTreeSet<String>>, Refusal> {
        let Some(spec) = &pod.pod.spec else { return Ok(None) };
        if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            return Err(Refusal::lasting("pod uses ResourceClaims, which this scheduler does not place yet"));
        }
        Ok(None)
    }

    fn prepare<'a>(&self, _pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Option<Box<dyn Prepared + 'a>> {
        None
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        false
    }
}
