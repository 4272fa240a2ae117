//! One pod: the decision, which counts at once, and the binding.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use tracing::{debug, warn};
use trireme_client::{EventKind, Object};

use super::Shared;
use super::events::node_name;
use super::volumes::Waited;
use crate::decide::{Decision, View, Waiting, decide};
use crate::framework::Wake;
use crate::metrics::Outcome;
use crate::node_info::PodInfo;
use crate::queue::Attempt;
use crate::volumes::Steps;

/// What becomes of a pod that was tried.
pub(super) enum Placement {
    /// It needs no decision any more.
    NotNeeded,
    Bind(String, Steps),
    Wait(Waiting),
}

impl Shared {
    /// Decides, and counts the pod where it is to go, or where it will.
    pub(super) fn place(&self, pod: &Arc<Pod>, tie: u64) -> Placement {
        let current = self.informers.pods.get(pod.namespace(), pod.name()).filter(|current| current.uid() == pod.uid());
        let Some(current) = current.filter(|current| node_name(current).is_none() && self.is_ours(current)) else {
            self.queue.lock().remove(pod.uid());
            return Placement::NotNeeded;
        };
        let info = Arc::new(PodInfo::new(current));
        let mut cache = self.cache.lock();
        let decision = decide(&self.plugins, &info, &cache.snapshot(&self.informers), tie);
        match decision {
            Decision::Bind(node, steps) => {
                for (volume, claim) in &steps.take {
                    cache.promise(volume.name(), Some(claim.uid()));
                }
                cache.assume(info, &node);
                Placement::Bind(node, steps)
            }
            Decision::Wait(waiting) => {
                match &waiting.view {
                    View::Keep => {}
                    View::Withdraw => {
                        cache.withdraw(info.uid());
                    }
                    View::Preempt { node, victims } => {
                        victims.iter().for_each(|victim| cache.set_doomed(victim.uid(), true));
                        cache.nominate(info, node);
                    }
                }
                Placement::Wait(waiting)
            }
        }
    }

    /// Sees to the pod's volumes first.
    pub(super) async fn bind_with_volumes(&self, pod: &Arc<Pod>, node: &str, steps: &Steps, attempt: Attempt, began: Instant) {
        let waited = self.bind_volumes(pod, node, steps).await;
        {
            let mut cache = self.cache.lock();
            steps.take.iter().for_each(|(volume, _)| cache.promise(volume.name(), None));
        }
        match waited {
            Waited::Bound => self.bind(pod, node, attempt, began).await,
            // The pod is gone: its deletion event removes it from cache and queue.
            Waited::Gone => self.happened(Wake::VolumeChanged),
            Waited::Failed(why) => {
                debug!(namespace = pod.namespace(), pod = pod.name(), node, why, "its volumes are not bound");
                self.metrics.attempted(Outcome::Error, began.elapsed());
                let message = format!("binding rejected: running PreBind plugin \"VolumeBinding\": binding volumes: {why}");
                self.recorder.record(&**pod, EventKind::Warning, "FailedScheduling", message);
                self.retry(pod);
            }
        }
    }

    /// The binding failed: the pod is tried again. If it succeeded nevertheless, the informer reports it, and the pod leaves the queue.
    fn retry(&self, pod: &Pod) {
        self.cache.lock().forget(pod.uid());
        let none = BTreeSet::new();
        self.queue.lock().failed(pod.uid(), none, |plugin, wake| self.wakes(plugin, wake), Instant::now());
        self.happened(Wake::PodFreed);
    }

    pub(super) async fn bind(&self, pod: &Arc<Pod>, node: &str, attempt: Attempt, began: Instant) {
        let binding = Instant::now();
        let bound = self.client.bind(pod.namespace(), pod.name(), pod.uid(), node).await;
        self.metrics.bound(bound.is_ok(), binding.elapsed());
        self.metrics.attempted(if bound.is_ok() { Outcome::Scheduled } else { Outcome::Error }, began.elapsed());
        match bound {
            Ok(()) => {
                self.metrics.placed(attempt.number, attempt.queued_at.elapsed());
                let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
                self.recorder.record(&**pod, EventKind::Normal, "Scheduled", message);
                self.queue.lock().remove(pod.uid());
            }
            Err(error) if error.is_not_found() => {
                debug!(namespace = pod.namespace(), pod = pod.name(), "gone before it was bound");
                self.cache.lock().forget(pod.uid());
                self.queue.lock().remove(pod.uid());
            }
            Err(error) => {
                warn!(namespace = pod.namespace(), pod = pod.name(), node, %error, "binding failed");
                if !error.is_conflict() {
                    let message = format!("binding rejected: {error}");
                    self.recorder.record(&**pod, EventKind::Warning, "FailedScheduling", message);
                }
                self.retry(pod);
            }
        }
    }
}
