//! Pods that need what this scheduler cannot place yet wait and say so.

use crate::framework::{Plugin, Prepared, Reason, Snapshot, Wake};
use crate::node_info::PodInfo;

pub(crate) struct Unsupported;
struct Nothing;

impl Prepared for Nothing {}

impl Plugin for Unsupported {
    fn name(&self) -> &'static str {
        "Unsupported"
    }

    fn pre_filter(&self, pod: &PodInfo) -> Result<(), Reason> {
        let Some(spec) = &pod.pod.spec else { return Ok(()) };
        let claims = spec.volumes.iter().flatten().any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
        if claims {
            return Err("pod uses PersistentVolumeClaims, which this scheduler does not place yet".into());
        }
        if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            return Err("pod uses ResourceClaims, which this scheduler does not place yet".into());
        }
        Ok(())
    }

    fn prepare<'a>(&self, _pod: &'a PodInfo, _snapshot: &'a Snapshot<'a>) -> Box<dyn Prepared + 'a> {
        Box::new(Nothing)
    }

    fn wakes_on(&self, _wake: Wake) -> bool {
        false
    }
}
