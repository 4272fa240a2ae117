//! Node lifecycle: detects nodes that stop reporting, taints unhealthy nodes, and evicts pods that do not tolerate the taints.
//!
//! Owns the node conditions that a kubelet without contact cannot write, the `node.kubernetes.io/*` taints that mirror conditions, and the
//! deletion of pods from NoExecute-tainted nodes. When no node at all is ready, nothing is evicted: then it is more likely
//! that this server is cut off.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller> and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

pub(crate) mod eviction;
mod health;
mod taints;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use parking_lot::Mutex;
use serde_json::json;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, Patch};

use crate::pods::{self, ByNode};
use crate::runtime::{Context, Controller, Next, Watches, clock};
use crate::{ControllerOptions, Error};
use health::NodeSeen;

/// The node lifecycle controller.
pub(crate) struct NodeLifecycle {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    pods: ByNode,
    seen: Arc<NodeSeen>,
    options: Arc<ControllerOptions>,
    /// Nodes that were announced.
    announced: Mutex<HashSet<String>>,
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-controller";
    const QUEUE: &'static str = "node_lifecycle_controller";
    type Key = String;
    type Reads = (Arc<Informer<Node>>, Arc<Informer<Pod>>, Arc<NodeSeen>);

    fn new((nodes, pods, seen): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            nodes,
            pods: ByNode::of(&pods),
            seen,
            options: Arc::clone(&context.options),
            announced: Mutex::new(HashSet::new()),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        watches.on(&self.nodes, |event| [event.object().name().to_owned()]);
    }

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
        let is_ready = health::ready(&node) == Some("True");
        if !is_ready {
            self.mark_pods(&node, now).await?;
        }
        // A ready node is one that is ready: only for the others all nodes have to be looked at.
        let disrupted = !is_ready && !self.nodes.list().iter().any(|node| health::ready(node) == Some("True"));
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

impl NodeLifecycle {
    /// Pods of a node that is not ready are not ready either: Services stop sending to them.
    async fn mark_pods(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        let mut marked = false;
        for pod in self.pods.get(node.name()) {
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
