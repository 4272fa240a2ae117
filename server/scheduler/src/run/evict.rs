//! Sends victims away, so that a more important pod gets their place.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tracing::{debug, info, warn};
use trireme_client::{DeleteOptions, Error, EventKind, Object, Patch};

use super::Shared;
use super::report::{condition, now};
use crate::framework::Wake;
use crate::node_info::PodInfo;

/// Deletions at once.
const PARALLEL: usize = 16;

impl Shared {
    /// Deletes all victims, the last one only if the others are deleted. Returns whether all went well.
    pub(super) async fn evict(&self, preemptor: &Arc<Pod>, node: &str, victims: &[Arc<PodInfo>]) -> bool {
        self.withdraw_less_important(preemptor, node).await;
        let Some((last, others)) = victims.split_last() else { return true };
        let mut well = true;
        for some in others.chunks(PARALLEL) {
            let sent = futures::future::join_all(some.iter().map(|victim| self.evict_one(preemptor, node, victim))).await;
            well &= sent.iter().all(|sent| *sent);
        }
        if !well {
            self.cache.lock().set_doomed(last.uid(), false);
        }
        well && self.evict_one(preemptor, node, last).await
    }

    /// Pods of lower priority that are nominated for the node may not fit any more: their nominations are withdrawn.
    async fn withdraw_less_important(&self, preemptor: &Pod, node: &str) {
        let priority = preemptor.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let others = self.cache.lock().nominated_below(node, priority);
        for other in others {
            let pod = &other.pod;
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"nominatedNodeName": null}}));
            if let Err(error) = self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &patch).await {
                debug!(namespace = pod.namespace(), pod = pod.name(), %error, "its nomination was not withdrawn");
                continue;
            }
            if self.cache.lock().withdraw(pod.uid()) {
                self.happened(Wake::PodFreed);
            }
        }
    }

    async fn evict_one(&self, preemptor: &Arc<Pod>, node: &str, victim: &Arc<PodInfo>) -> bool {
        let pod = &victim.pod;
        if pod.metadata.deletion_timestamp.is_some() {
            return true;
        }
        match self.mark_and_delete(pod).await {
            Ok(()) => {
                info!(namespace = pod.namespace(), pod = pod.name(), node, preemptor = preemptor.name(), "preempted");
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid());
                self.recorder.record(&**pod, EventKind::Normal, "Preempted", message);
                true
            }
            Err(error) if error.is_not_found() || (error.is_conflict() && self.is_gone(pod)) => true,
            Err(error) => {
                warn!(namespace = pod.namespace(), pod = pod.name(), node, %error, "not preempted");
                self.cache.lock().set_doomed(pod.uid(), false);
                false
            }
        }
    }

    /// Whether there is no such pod any more; another one may have its name.
    fn is_gone(&self, pod: &Pod) -> bool {
        self.informers.pods.get(pod.namespace(), pod.name()).is_none_or(|current| current.uid() != pod.uid())
    }

    /// The condition is written first, so that every observer of the deletion sees its reason.
    async fn mark_and_delete(&self, pod: &Pod) -> Result<(), Error> {
        let scheduler = &self.options.scheduler_name;
        let message = format!("{scheduler}: preempting to accommodate a higher priority pod");
        let target = condition(pod, "DisruptionTarget", "True", "PreemptionByScheduler", &message, now());
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [target]}}));
        self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &patch).await?;
        self.client.delete::<Pod>(Some(pod.namespace()), pod.name(), &DeleteOptions::uid(pod.uid())).await
    }
}
