//! How long a node has been silent, by this server's clock: the node's may be wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use trireme_client::{Event, Informer, InformerOptions, Object};

use crate::runtime::{Part, Reads, Request, Scope};

/// When each node was last heard of. Kept on every server, leading or not, so that a new leader need not wait out a grace
/// period to learn what the old one knew.
pub(crate) struct NodeSeen {
    nodes: Mutex<HashMap<String, Instant>>,
    started: Instant,
}

/// The Leases that kubelets renew.
struct NodeLeases;

impl Scope for NodeLeases {
    fn options() -> InformerOptions {
        InformerOptions { namespace: Some("kube-node-lease".to_owned()), ..InformerOptions::default() }
    }
}

impl Reads for Arc<NodeSeen> {
    fn request(request: &mut Request<'_>) -> Self {
        let nodes = <Arc<Informer<Node>>>::request(request);
        let leases = Part::<Lease, NodeLeases>::request(request);
        NodeSeen::start(&nodes, &leases)
    }
}

impl NodeSeen {
    fn start(nodes: &Informer<Node>, leases: &Informer<Lease>) -> Arc<Self> {
        let seen = Arc::new(Self { nodes: Mutex::new(HashMap::new()), started: Instant::now() });
        let sink = Arc::clone(&seen);
        nodes.on_event(move |event| {
            let beat = |node: &Node| ready_condition(node).and_then(|ready| ready.last_heartbeat_time.clone());
            match event {
                Event::Added(node) => sink.heard(node.name()),
                Event::Updated { old, new } if old.uid() != new.uid() => sink.heard(new.name()),
                // The controller's own writes never move the heartbeat.
                Event::Updated { old, new } if beat(old) != beat(new) => sink.heard(new.name()),
                Event::Updated { .. } => {}
                Event::Deleted(node) => sink.forget(node.name()),
            }
        });
        let sink = Arc::clone(&seen);
        leases.on_event(move |event| {
            let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            match event {
                Event::Added(lease) => sink.heard(lease.name()),
                Event::Updated { old, new } if renewed(old) != renewed(new) => sink.heard(new.name()),
                Event::Updated { .. } | Event::Deleted(_) => {}
            }
        });
        seen
    }

    fn heard(&self, node: &str) {
        self.nodes.lock().insert(node.to_owned(), Instant::now());
    }

    pub(super) fn forget(&self, node: &str) {
        self.nodes.lock().remove(node);
    }

    pub(super) fn silence(&self, node: &str) -> Duration {
        self.nodes.lock().get(node).copied().unwrap_or(self.started).elapsed()
    }
}

fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
}

/// The status of a node's Ready condition.
pub(super) fn ready(node: &Node) -> Option<&str> {
    ready_condition(node).map(|condition| condition.status.as_str())
}

/// The conditions to set on a node that is silent; empty if they are set.
pub(super) fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<Value> {
    const KINDS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let known = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    KINDS
        .iter()
        .filter_map(|kind| match known.iter().find(|condition| condition.type_ == *kind) {
            Some(condition) if condition.status == "Unknown" => None,
            Some(_) => Some(json!({
                "type": kind, "status": "Unknown", "lastTransitionTime": now.to_string(),
                "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status.",
            })),
            None => Some(json!({
                "type": kind, "status": "Unknown", "lastTransitionTime": now.to_string(),
                "lastHeartbeatTime": node.metadata.creation_timestamp,
                "reason": "NodeStatusNeverUpdated", "message": "Kubelet never posted node status.",
            })),
        })
        .collect()
}
