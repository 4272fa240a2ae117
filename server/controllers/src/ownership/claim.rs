//! Which objects are whose. No I/O.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::Object;

use super::controller_of;

/// Which objects a controller has, gains and gives up.
#[derive(Debug)]
pub(crate) struct Claim<C> {
    pub(crate) owned: Vec<Arc<C>>,
    pub(crate) adopt: Vec<Arc<C>>,
    pub(crate) release: Vec<Arc<C>>,
}

/// Sorts candidates: those that the owner controls and selects are owned, those without a controller that it selects are to
/// adopt, those it controls and no longer selects are to release. Candidates of other namespaces are ignored. An
/// owner that is being deleted only keeps what it has.
pub(crate) fn claim<C: Object>(owner: &ObjectMeta, selects: impl Fn(&C) -> bool, candidates: Vec<Arc<C>>) -> Claim<C> {
    let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let deleting = owner.deletion_timestamp.is_some();
    for candidate in candidates {
        let meta = candidate.meta();
        if meta.namespace != owner.namespace {
            continue;
        }
        let selected = selects(&candidate);
        match controller_of(meta) {
            Some(controller) if Some(&controller.uid) == owner.uid.as_ref() => {
                if selected {
                    claim.owned.push(candidate);
                } else if !deleting {
                    claim.release.push(candidate);
                }
            }
            None if selected && !deleting && meta.deletion_timestamp.is_none() => claim.adopt.push(candidate),
            _ => {}
        }
    }
    claim
}
