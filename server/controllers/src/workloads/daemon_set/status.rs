//! The status of a DaemonSet. No I/O.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use trireme_client::Object;

use super::eligible::Fit;
use super::manage::Situation;
use crate::pods;

pub(super) fn status(set: &DaemonSet, situation: &Situation<'_>, collisions: Option<i32>) -> DaemonSetStatus {
    let (mut desired, mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for node in situation.nodes {
        let oldest = situation.pods.get(node.name()).and_then(|pods| pods.first());
        if situation.place.fit(node) != Fit::Runs {
            misplaced += i32::from(oldest.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = oldest else { continue };
        current += 1;
        ready += i32::from(pods::is_ready(pod));
        available += i32::from(situation.is_available(pod));
        updated += i32::from(situation.newest.is(pod));
    }
    let nonzero = |number: i32| Some(number).filter(|number| *number != 0);
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        number_ready: ready,
        number_available: nonzero(available),
        number_unavailable: nonzero(desired - available),
        updated_number_scheduled: nonzero(updated),
        observed_generation: set.metadata.generation,
        collision_count: collisions,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}
