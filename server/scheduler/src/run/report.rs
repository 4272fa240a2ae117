//! Reports why a pod has no node: its condition, an event, and its nominated node.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::debug;
use trireme_client::{EventKind, Object, Patch};

use super::Shared;
use super::events::nominated_node;
use crate::decide::{View, Waiting};

const REASON: &str = "Unschedulable";

impl Shared {
    /// Says why the pod has no node, sends its victims away if it has any, then lets it wait.
    pub(super) async fn report(&self, pod: &Arc<Pod>, waiting: &Waiting) {
        self.recorder.record(&**pod, EventKind::Warning, "FailedScheduling", waiting.message.clone());
        // The queued pod may be older than the one in the informer.
        let current = self.informers.pods.get(pod.namespace(), pod.name()).filter(|current| current.uid() == pod.uid());
        let in_view = self.cache.lock().nomination(pod.uid()).map(str::to_owned);
        let status = status_patch(current.as_deref().unwrap_or(pod), waiting, in_view.as_deref(), now());
        if let Some(status) = status {
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
            if let Err(error) = self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &patch).await {
                debug!(namespace = pod.namespace(), pod = pod.name(), %error, "the condition was not written");
            }
        }
        if waiting.searched {
            self.metrics.preemption_attempts.inc();
        }
        let mut plugins = waiting.plugins.clone();
        if let View::Preempt { node, victims } = &waiting.view {
            self.metrics.preemption_victims.observe(u32::try_from(victims.len()).unwrap_or(u32::MAX).into());
            if !self.evict(pod, node, victims).await {
                // The eviction failed: the pod is retried after its backoff, without waiting for an event.
                plugins = BTreeSet::new();
            }
        }
        self.queue.lock().failed(pod.uid(), plugins, |plugin, wake| self.wakes(plugin, wake), Instant::now());
        self.wake.notify_one();
    }
}

/// Now, in whole seconds as the API writes times.
pub(super) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}

/// A condition, with the time since when its status is what it is.
pub(super) fn condition(pod: &Pod, type_: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let known = known_condition(pod, type_).filter(|known| known.status == status);
    let since = known.and_then(|known| known.last_transition_time.as_ref()).map_or(now, |time| time.0);
    json!({
        "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since.to_string(),
        "observedGeneration": pod.metadata.generation,
    })
}

fn known_condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// What of the pod's status is to change, if anything.
fn status_patch(pod: &Pod, waiting: &Waiting, in_view: Option<&str>, now: Timestamp) -> Option<Value> {
    let mut status = json!({});
    let says = known_condition(pod, "PodScheduled").is_some_and(|known| {
        known.status == "False"
            && known.reason.as_deref() == Some(REASON)
            && known.message.as_deref() == Some(&waiting.message)
            && known.observed_generation == pod.metadata.generation
    });
    if !says {
        status["conditions"] = json!([condition(pod, "PodScheduled", "False", REASON, &waiting.message, now)]);
    }
    if in_view != nominated_node(pod) {
        status["nominatedNodeName"] = json!(in_view);
    }
    status.as_object().is_some_and(|fields| !fields.is_empty()).then_some(status)
}
