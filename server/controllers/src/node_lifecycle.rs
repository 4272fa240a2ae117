//! Node lifecycle: notices nodes that went silent, taints what is not well, and evicts pods that do not tolerate it.
//!
//! Owns the node conditions a silent kubelet cannot write, the `node.kubernetes.io/*` taints that mirror conditions, and the
//! deletion of pods from NoExecute-tainted nodes. When no node at all is ready, nothing is evicted: then it is more likely us
//! who are cut off.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller> and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

mod eviction;
mod health;
mod taints;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use parking_lot::Mutex;
use serde_json::json;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, ObjectKey, Patch, WorkQueue};

use crate::informers::BY_NODE;
use crate::runtime::{Lead, Next, Reconcile};
use crate::{ControllerOptions, Error, clock, pods};
pub(crate) use health::NodeSeen;

const NAME: &str = "node-controller";

struct Controller {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    seen: Arc<NodeSeen>,
    options: Arc<ControllerOptions>,
    /// Nodes that were announced.
    announced: Mutex<HashSet<String>>,
}

pub(crate) fn start(lead: &mut Lead) {
    let informers = Arc::clone(&lead.informers);
    let queue: WorkQueue<String> = lead.queue("node_lifecycle_controller");
    let controller = Arc::new(Controller {
        client: lead.client(NAME),
        recorder: lead.recorder(NAME),
        nodes: Arc::clone(&informers.nodes),
        pods: Arc::clone(&informers.pods),
        seen: Arc::clone(&informers.node_seen),
        options: Arc::clone(&lead.options),
        announced: Mutex::new(HashSet::new()),
    });
    let keys = queue.clone();
    lead.keep(informers.nodes.subscribe(move |event| keys.add(event.object().name().to_owned())));
    lead.work(NAME, &queue, &controller);
    eviction::start(lead);
}

impl Reconcile<String> for Controller {
    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        let Some(node) = self.nodes.get("", key) else {
            self.seen.forget(key);
            if self.announced.lock().remove(key) {
                let message = format!("Node {key} event: Removing Node {key} from Controller");
                self.recorder.record_ref(node_reference(key), EventKind::Normal, "RemovingNode", message);
            }
            return Ok(Next::Wait);
        };
        if self.announced.lock().insert(key.clone()) {
            let message = format!("Node {key} event: Registered Node {key} in Controller");
            self.recorder.record_ref(node_reference(key), EventKind::Normal, "RegisteredNode", message);
        }
        let now = clock::now();
        let silent = self.seen.silence(key) > self.options.node_monitor_grace;
        let mut node = node;
        if silent {
            let changed = health::unknown_conditions(&node, now);
            if !changed.is_empty() {
                let patch = json!({"metadata": {"uid": node.uid()}, "status": {"conditions": changed}});
                let written: Node = self.client.patch_status(None, key, &Patch::Strategic(patch)).await?;
                node = Arc::new(written);
            }
        }
        if health::ready(&node) != Some("True") {
            self.mark_pods(&node, now).await?;
        }
        let disrupted = !self.nodes.list().iter().any(|node| health::ready(node) == Some("True"));
        if let Some(wanted) = taints::plan(&node, disrupted, now) {
            let patch = json!({
                "metadata": {"uid": node.uid(), "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": wanted},
            });
            self.client.patch::<Node>(None, key, &Patch::Merge(patch)).await?;
        }
        Ok(Next::After(self.options.node_monitor_period))
    }
}

impl Controller {
    /// Pods of a node that is not ready are not ready either: Services stop sending to them.
    async fn mark_pods(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        let mut marked = false;
        for pod in self.pods.by_index(BY_NODE, node.name()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let patch = json!({
                "metadata": {"uid": pod.uid()},
                "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now.to_string()}]},
            });
            match self.client.patch_status::<Pod>(Some(pod.namespace()), pod.name(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    marked = true;
                    self.recorder.record(&*pod, EventKind::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if marked {
            let message = format!("Node {} status is now: NodeNotReady", node.name());
            self.recorder.record_ref(node_reference(node.name()), EventKind::Normal, "NodeNotReady", message);
        }
        Ok(())
    }
}

/// Upstream's events name a node by its name in place of its uid; kubectl describe looks for that.
fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// The key of a pod in the eviction queue: its name and uid, so that a successor of the same name is not meant.
type Victim = (ObjectKey, String);
