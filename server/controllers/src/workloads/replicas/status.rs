//! The status of a ReplicaSet or ReplicationController. No I/O.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use trireme_client::labels;

use crate::pods;

/// A failure to create or delete.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// How many pods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(super) all: i32,
    pub(super) fully_labeled: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    /// Being deleted, and not counted above.
    pub(super) ending: i32,
}

impl Counts {
    pub(super) fn of(template: Option<&PodTemplateSpec>, min_ready_secs: i32, active: &[Arc<Pod>], ending: usize, now: Timestamp) -> Self {
        let wanted = template.and_then(|template| template.metadata.as_ref()).and_then(|meta| meta.labels.clone());
        let wanted = wanted.unwrap_or_default();
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let count = |test: &dyn Fn(&Pod) -> bool| number(active.iter().filter(|pod| test(pod)).count());
        Self {
            all: number(active.len()),
            fully_labeled: count(&|pod| labels::matches_map(&wanted, pod.metadata.labels.as_ref())),
            ready: count(&pods::is_ready),
            available: count(&|pod| pods::available_in_secs(pod, min_ready_secs, now) == Some(0)),
            ending: number(ending),
        }
    }
}
