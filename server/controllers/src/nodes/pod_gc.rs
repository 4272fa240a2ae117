//! Pod garbage collection: pods whose node is gone, pods that were deleted before they got a node, pods of nodes that are out
//! of service, and finished pods beyond the threshold.
//!
//! A node must have been missing for 40 s, and the API must not know it either, before its pods go.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection>.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tracing::info;
use trireme_client::{Client, DeleteOptions, Informer, Object, Patch};

use crate::pods::{self, ByNode};
use crate::runtime::{Context, Controller, Next, Watches, clock};
use crate::{ControllerOptions, Error};

const PERIOD: Duration = Duration::from_secs(20);
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What there is to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// All pods, every 20 s.
    All,
    /// The pods of a node that the cache does not know.
    Node(String),
}

/// The pod garbage collector.
pub(crate) struct PodGc {
    client: Client,
    pods: Arc<Informer<Pod>>,
    by_node: ByNode,
    nodes: Arc<Informer<Node>>,
    options: Arc<ControllerOptions>,
    /// Since when nodes with pods are missing.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Controller for PodGc {
    const NAME: &'static str = "pod-garbage-collector";
    const QUEUE: &'static str = "orphaned_pods_nodes";
    type Key = Task;
    type Reads = (Arc<Informer<Pod>>, Arc<Informer<Node>>);

    fn new((pods, nodes): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            by_node: ByNode::of(&pods),
            pods,
            nodes,
            options: Arc::clone(&context.options),
            missing: Mutex::new(HashMap::new()),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, Task>) {
        watches.once(Task::All);
        watches.on(&self.nodes, |event| [Task::Node(event.object().name().to_owned())]);
        let nodes = Arc::clone(&self.nodes);
        watches.on(&self.pods, move |event| {
            let unknown = pods::node_name(event.object()).filter(|name| nodes.get("", name).is_none());
            unknown.map(|name| Task::Node(name.to_owned()))
        });
    }

    async fn reconcile(&self, task: &Task) -> Result<Next, Error> {
        match task {
            Task::All => {
                let result = self.collect_all().await;
                // Whatever failed is tried in the next round.
                result.map(|()| Next::After(PERIOD))
            }
            Task::Node(name) => self.collect_orphans(name).await,
        }
    }
}

impl PodGc {
    async fn collect_all(&self) -> Result<(), Error> {
        let all = self.pods.list();
        let mut errors = Vec::new();
        for pod in surplus_terminated(&all, self.options.terminated_pod_threshold) {
            errors.extend(self.remove(&pod, None).await.err());
        }
        for pod in all.iter().filter(|pod| pods::is_terminating(pod)) {
            if pods::node_name(pod).is_none() {
                errors.extend(self.remove(pod, None).await.err());
            } else if self.is_out_of_service(pod) {
                errors.extend(self.remove(pod, Some("PodGC: node is out of service")).await.err());
            }
        }
        Error::first_of(errors).map_or(Ok(()), Err)
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

    async fn collect_orphans(&self, node: &str) -> Result<Next, Error> {
        let orphans = self.by_node.get(node);
        if self.nodes.get("", node).is_some() || orphans.is_empty() {
            self.missing.lock().remove(node);
            return Ok(Next::Wait);
        }
        let since = *self.missing.lock().entry(node.to_owned()).or_insert_with(Instant::now);
        if let Some(left) = QUARANTINE.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            return Ok(Next::After(left));
        }
        match self.client.get::<Node>(None, node).await {
            Ok(_) => return Err(Error::StaleCache),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let mut errors = Vec::new();
        for pod in orphans {
            errors.extend(self.remove(&pod, Some("PodGC: node no longer exists")).await.err());
        }
        Error::first_of(errors).map_or(Ok(Next::Wait), Err)
    }

    /// Deletes at once; a pod that is not finished is marked failed first, so that its owner counts it so.
    async fn remove(&self, pod: &Pod, reason: Option<&str>) -> Result<(), Error> {
        if !pods::is_terminal(pod) {
            let mut status = json!({"phase": "Failed"});
            if let Some(reason) = reason {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": reason,
                    "lastTransitionTime": clock::now().to_string(),
                }]);
            }
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
            match self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &patch).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let options = DeleteOptions::uid(pod.uid()).grace_period_secs(0);
        match self.client.delete::<Pod>(Some(pod.namespace()), pod.name(), &options).await {
            Ok(()) => {
                info!(namespace = pod.namespace(), pod = pod.name(), reason, "collected a pod");
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The oldest finished pods beyond the threshold; zero keeps all.
fn surplus_terminated(all: &[Arc<Pod>], threshold: usize) -> Vec<Arc<Pod>> {
    if threshold == 0 {
        return Vec::new();
    }
    let mut finished: Vec<&Arc<Pod>> = all.iter().filter(|pod| pods::is_terminal(pod)).collect();
    let surplus = finished.len().saturating_sub(threshold);
    finished.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name().to_owned()));
    finished.into_iter().take(surplus).cloned().collect()
}
