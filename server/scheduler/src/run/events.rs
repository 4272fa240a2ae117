//! What happens in the cluster, as cache and queue have to know it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::time::Instant;
use trireme_client::{Event, Object};

use super::Shared;
use crate::framework::Wake;
use crate::node_info::PodInfo;
use crate::resources;

impl Shared {
    pub(super) fn on_node(&self, event: &Event<Node>) {
        let node = event.object();
        match event {
            Event::Deleted(_) => self.cache.lock().remove_node(node.name()),
            _ => self.cache.lock().set_node(Arc::clone(node)),
        }
        match event {
            Event::Added(_) => self.happened(Wake::NodeChanged),
            Event::Updated { old, new } if is_other_place(old, new) => self.happened(Wake::NodeChanged),
            Event::Updated { .. } => {}
            Event::Deleted(_) => self.happened(Wake::NodeGone),
        }
    }

    /// A claim, volume or class. It wakes every pod that waits for storage: the next attempt finds out whether it was the right one.
    pub(super) fn on_storage<T>(&self, event: &Event<T>, wake: Wake) {
        if !event.is_deletion() {
            self.happened(wake);
        }
    }

    pub(super) fn on_pod(&self, event: &Event<Pod>) {
        if let Event::Updated { old, new } = event
            && old.uid() != new.uid()
        {
            self.pod_gone(old);
        }
        let pod = event.object();
        let old = event.old().filter(|old| old.uid() == pod.uid());
        if matches!(event, Event::Deleted(_)) || is_over(pod) {
            self.pod_gone(pod);
        } else if let Some(node) = node_name(pod) {
            self.pod_placed(old.map(|old| &**old), pod, node);
        } else if self.is_ours(pod) {
            self.pod_waits(old.map(|old| &**old), pod);
        } else {
            self.pod_gone(pod);
        }
    }

    fn pod_placed(&self, old: Option<&Pod>, pod: &Arc<Pod>, node: &str) {
        let wake = match old {
            Some(old) if node_name(old).is_some() => matters_to_others(old, pod).then_some(Wake::PodChanged),
            _ => Some(Wake::PodPlaced),
        };
        self.cache.lock().confirm(Arc::clone(pod), node);
        self.queue.lock().remove(pod.uid());
        if let Some(wake) = wake {
            self.happened(wake);
        }
    }

    fn pod_waits(&self, old: Option<&Pod>, pod: &Arc<Pod>) {
        let (before, now) = (old.and_then(nominated_node), nominated_node(pod));
        let mut withdrawn = false;
        {
            let mut cache = self.cache.lock();
            if cache.is_assumed(pod.uid()) {
                return;
            }
            match now {
                Some(node) => {
                    withdrawn = before.is_some_and(|before| before != node);
                    cache.nominate(Arc::new(PodInfo::new(Arc::clone(pod))), node);
                }
                // If the old pod had no nomination either, the nomination is ours and not yet written to the API: it stays.
                None if before.is_some() => {
                    withdrawn = cache.withdraw(pod.uid());
                }
                None => {}
            }
        }
        self.queue.lock().add(Arc::clone(pod), Instant::now());
        if withdrawn {
            // The pod has given up its nominated node: to pods of lower or equal priority this is as if it had left the node.
            self.happened(Wake::PodFreed);
        }
        self.wake.notify_one();
    }

    /// The pod needs no place any more, or never did need one of ours.
    pub(super) fn pod_gone(&self, pod: &Pod) {
        let freed = self.cache.lock().remove(pod.uid());
        self.queue.lock().remove(pod.uid());
        if freed {
            self.happened(Wake::PodFreed);
        }
    }
}

pub(super) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub(super) fn nominated_node(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
}

pub(super) fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether what changed of a pod on a node can matter to a pod that waits.
fn matters_to_others(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || resources::requests(old, false) != resources::requests(new, false)
}

/// Whether a node's change can matter to any pod.
fn is_other_place(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.unschedulable, spec.taints.clone()));
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || spec(old) != spec(new) || allocatable(old) != allocatable(new)
}
