//! The status of a StatefulSet. No I/O.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::Pod;
use trireme_client::Object;

use super::identity::{ordinal_in, revision_of};
use super::view::View;
use crate::pods;

/// The names of the revisions that a status counts by.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) current: &'a str,
    pub(super) update: &'a str,
    pub(super) collisions: i32,
}

/// The status of a set with these pods.
pub(super) fn status(view: &View<'_>, pods: &[Arc<Pod>], names: Names<'_>, now: Timestamp) -> StatefulSetStatus {
    let old = view.set.status.clone().unwrap_or_default();
    let members: Vec<&Arc<Pod>> = pods.iter().filter(|pod| ordinal_in(view.name(), pod.name()).is_some()).collect();
    let count = |counts: &dyn Fn(&Pod) -> bool| i32::try_from(members.iter().filter(|pod| counts(pod)).count()).unwrap_or(i32::MAX);
    let is_ready = |pod: &Pod| pods::phase(pod) == "Running" && pods::is_ready(pod);
    let is_of = |pod: &Pod, revision: &str| !pods::is_terminating(pod) && revision_of(pod) == revision;
    let replicas = count(&|_| true);
    let ready = count(&is_ready);
    let available = count(&|pod| is_ready(pod) && pods::available_in_secs(pod, view.min_ready_secs(), now) == Some(0));
    let updated = count(&|pod| is_of(pod, names.update));
    let mut current = (names.current, count(&|pod| is_of(pod, names.current)));
    let wanted = view.replicas();
    if view.updates_by_itself() && [replicas, ready, updated] == [wanted; 3] {
        current = (names.update, updated);
    }
    let nonzero = |number: i32| Some(number).filter(|number| *number != 0);
    StatefulSetStatus {
        replicas,
        ready_replicas: nonzero(ready),
        available_replicas: Some(available),
        current_replicas: nonzero(current.1),
        updated_replicas: nonzero(updated),
        current_revision: Some(current.0.to_owned()),
        update_revision: Some(names.update.to_owned()),
        collision_count: Some(names.collisions),
        observed_generation: view.set.metadata.generation,
        conditions: old.conditions,
    }
}
