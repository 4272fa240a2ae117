//! Pod garbage collection: pods whose node is gone, pods that were deleted before they got a node, and finished pods beyond
//! the threshold.
//!
//! Looks every 20 s, at the cache only; whether a node is really gone is asked live before its pods go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info};
use trireme_client::{Client, DeleteOptions, Informer, Object, Patch};

use crate::runtime::Lead;
use crate::{Error, clock, pods};

const NAME: &str = "pod-garbage-collector";
const PERIOD: Duration = Duration::from_secs(20);
/// A node must have been missing for this long.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct Controller {
    client: Client,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    threshold: usize,
    missing: HashMap<String, Instant>,
}

pub(crate) fn start(lead: &mut Lead) {
    let mut controller = Controller {
        client: lead.client(NAME),
        pods: Arc::clone(&lead.informers.pods),
        nodes: Arc::clone(&lead.informers.nodes),
        threshold: lead.options.terminated_pod_threshold,
        missing: HashMap::new(),
    };
    lead.spawn(async move {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            controller.collect().await;
        }
    });
}

impl Controller {
    async fn collect(&mut self) {
        let all = self.pods.list();
        for pod in surplus_terminated(&all, self.threshold) {
            self.remove(&pod, None).await;
        }
        for pod in self.orphans(&all).await {
            self.remove(&pod, Some("PodGC: node no longer exists")).await;
        }
        for pod in all.iter().filter(|pod| pods::is_terminating(pod)) {
            if pods::node_name(pod).is_none() {
                self.remove(pod, None).await;
            } else if self.is_out_of_service(pod) {
                self.remove(pod, Some("PodGC: node is out of service")).await;
            }
        }
    }

    fn is_out_of_service(&self, pod: &Pod) -> bool {
        let Some(node) = pods::node_name(pod).and_then(|name| self.nodes.get("", name)) else { return false };
        let tainted = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == OUT_OF_SERVICE);
        let ready = node
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        tainted && !ready
    }

    /// The pods of nodes that have been missing for long enough and that the API does not know either.
    async fn orphans(&mut self, all: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let unknown: HashSet<&str> =
            all.iter().filter_map(|pod| pods::node_name(pod)).filter(|name| self.nodes.get("", name).is_none()).collect();
        self.missing.retain(|name, _| unknown.contains(name.as_str()));
        let mut gone = HashSet::new();
        for name in unknown {
            let since = *self.missing.entry(name.to_owned()).or_insert_with(Instant::now);
            if since.elapsed() < QUARANTINE {
                continue;
            }
            match self.client.get::<Node>(None, name).await {
                Err(error) if error.is_not_found() => {
                    gone.insert(name);
                }
                Err(error) => debug!(node = name, %error, "cannot tell whether the node exists"),
                Ok(_) => {}
            }
        }
        all.iter().filter(|pod| pods::node_name(pod).is_some_and(|name| gone.contains(name))).cloned().collect()
    }

    /// Deletes at once; a pod that is not finished is marked failed first, so that its owner counts it so.
    async fn remove(&self, pod: &Pod, reason: Option<&str>) {
        let result: Result<(), Error> = async {
            if !pods::is_terminal(pod) {
                let mut status = json!({"phase": "Failed"});
                if let Some(reason) = reason {
                    status["conditions"] = json!([{
                        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": reason,
                        "lastTransitionTime": clock::now().to_string(),
                    }]);
                }
                let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
                self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &patch).await?;
            }
            let options = DeleteOptions::uid(pod.uid()).grace_period_secs(0);
            self.client.delete::<Pod>(Some(pod.namespace()), pod.name(), &options).await?;
            Ok(())
        }
        .await;
        match result {
            Ok(()) => info!(namespace = pod.namespace(), pod = pod.name(), reason, "collected a pod"),
            Err(error) => debug!(namespace = pod.namespace(), pod = pod.name(), %error, "a pod was not collected"),
        }
    }
}

/// The oldest finished pods beyond the threshold.
fn surplus_terminated(all: &[Arc<Pod>], threshold: usize) -> Vec<Arc<Pod>> {
    if threshold == 0 {
        return Vec::new();
    }
    let mut finished: Vec<&Arc<Pod>> = all.iter().filter(|pod| pods::is_terminal(pod)).collect();
    let surplus = finished.len().saturating_sub(threshold);
    finished.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name().to_owned()));
    finished.into_iter().take(surplus).cloned().collect()
}
