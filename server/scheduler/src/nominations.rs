//! The pods with a nominated node: other pods are being preempted there for them. No I/O.
//!
//! A pod that is scheduled meanwhile treats a nominated pod of equal or higher priority as if it were on the node already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use trireme_client::Object;

use crate::node_info::PodInfo;

#[derive(Default)]
pub(crate) struct Nominations {
    by_node: HashMap<String, BTreeMap<String, Arc<PodInfo>>>,
    node_of: HashMap<String, String>,
}

impl Nominations {
    /// Nominates this node for the pod, in place of any other.
    pub(crate) fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        let uid = pod.pod.uid().to_owned();
        self.remove(&uid);
        self.node_of.insert(uid.clone(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().insert(uid, pod);
    }

    /// Withdraws the nomination of the pod; returns whether it had one.
    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        let Some(node) = self.node_of.remove(uid) else { return false };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
        true
    }

    /// The pod's nominated node.
    pub(crate) fn node_of(&self, uid: &str) -> Option<&str> {
        self.node_of.get(uid).map(String::as_str)
    }

    /// The pods that are nominated for this node.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.by_node.get(node).into_iter().flat_map(BTreeMap::values)
    }
}
