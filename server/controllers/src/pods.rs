//! What controllers ask of a pod.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use trireme_client::{Index, Informer};

use crate::runtime::clock::seconds_since;

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Succeeded or Failed: it will never run again.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Being deleted, and not yet finished.
pub(crate) fn is_ending(pod: &Pod) -> bool {
    is_terminating(pod) && !is_terminal(pod)
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Seconds until a ready pod counts as available; zero if it does, `None` if it is not ready.
pub(crate) fn available_in_secs(pod: &Pod, min_ready_secs: i32, now: Timestamp) -> Option<i64> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    if min_ready_secs <= 0 {
        return Some(0);
    }
    let since = ready.last_transition_time.as_ref()?;
    Some((i64::from(min_ready_secs) - seconds_since(since, now)).max(0))
}

pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// How often the container that restarted most has restarted.
pub(crate) fn max_restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}

/// Pods by the node they are bound to.
#[derive(Clone)]
pub(crate) struct ByNode(Index<Pod>);

impl ByNode {
    pub(crate) fn of(pods: &Arc<Informer<Pod>>) -> Self {
        Self(pods.index("node", |pod| node_name(pod).map(str::to_owned).into_iter().collect()))
    }

    /// The pods bound to a node.
    pub(crate) fn get(&self, node: &str) -> Vec<Arc<Pod>> {
        self.0.get(node)
    }
}
