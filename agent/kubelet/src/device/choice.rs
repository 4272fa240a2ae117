//! Which devices a container gets. Pure.
//!
//! Invariant: of two containers that may run at the same time, none gets a device that the other has
//! (`no_device_has_two_live_containers_also_over_restarts`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::{inventory::Inventory, ledger::Ledger, lifetime::may_overlap};
use crate::pod::spec;

/// A container that asks for devices of a resource.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a str,
    pub(super) resource: &'a str,
    pub(super) count: usize,
}

/// What a wish can be granted from.
#[derive(Debug, PartialEq)]
pub(super) struct Choice {
    /// Taken over from containers of the same pod that have ended when this one runs.
    pub(super) taken_over: BTreeSet<String>,
    /// Nobody's.
    pub(super) free: BTreeSet<String>,
    count: usize,
}

impl Choice {
    /// What there is for this wish, or why there is too little, in upstream's words.
    pub(super) fn of(wish: Wish<'_>, inventory: &Inventory, ledger: &Ledger) -> Result<Choice, String> {
        let Wish { pod, container, resource, count } = wish;
        let healthy = inventory.healthy(resource).ok_or_else(|| format!("cannot allocate unregistered device {resource}"))?;
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        let (mut own, mut blocked) = (BTreeSet::new(), BTreeSet::new());
        for (uid, holder, grant) in ledger.holders(resource) {
            let is_own = uid == spec::uid(pod) && !may_overlap(pod, container, holder);
            if is_own { &mut own } else { &mut blocked }.extend(grant.devices.keys().cloned());
        }
        let taken_over: BTreeSet<String> =
            healthy.iter().filter(|id| own.contains(*id) && !blocked.contains(*id)).take(count).cloned().collect();
        let free: BTreeSet<String> = healthy.into_iter().filter(|id| !own.contains(id) && !blocked.contains(id)).collect();
        let needed = count - taken_over.len();
        if free.len() < needed {
            let available = free.len();
            return Err(format!("requested number of devices unavailable for {resource}. Requested: {needed}, Available: {available}"));
        }
        Ok(Choice { taken_over, free, count })
    }

    /// Whether the container needs devices beyond those that it takes over.
    pub(super) fn is_open(&self) -> bool {
        self.taken_over.len() < self.count
    }

    /// Those that are taken over, then those of the free ones that the plugin prefers, then others.
    pub(super) fn pick(self, preferred: &[String]) -> BTreeSet<String> {
        let mut picked = self.taken_over;
        let preferred = preferred.iter().filter(|id| self.free.contains(*id));
        for id in preferred.chain(&self.free) {
            if picked.len() == self.count {
                break;
            }
            picked.insert(id.clone());
        }
        picked
    }
}
