//! The nodes with the pods on them, as far as we know: what the informers say, plus what we have decided and not yet seen
//! confirmed. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use trireme_client::Object;

use crate::node_info::{NodeInfo, PodInfo};

#[derive(Default)]
pub(crate) struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each pod counts, and whether only we say so.
    places: HashMap<String, Place>,
    /// Pods on nodes that we do not know (yet).
    homeless: HashMap<String, BTreeMap<String, PodInfo>>,
}

struct Place {
    node: String,
    assumed: bool,
}

impl Cache {
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// How many nodes, pods with a place, and pods of which only we say so.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        (self.nodes.len(), self.places.len(), self.places.values().filter(|place| place.assumed).count())
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let name = node.name().to_owned();
        match self.nodes.get_mut(&name) {
            Some(info) => info.set_node(node),
            None => {
                let mut info = NodeInfo::new(node);
                for (_, pod) in self.homeless.remove(&name).into_iter().flatten() {
                    info.add(pod);
                }
                self.nodes.insert(name, info);
            }
        }
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.homeless.insert(name.to_owned(), info.pods);
        }
    }

    /// The API says that the pod is on this node.
    pub(crate) fn confirm(&mut self, pod: Arc<Pod>, node: &str) {
        self.place(PodInfo::new(pod), node, false);
    }

    /// We decided that the pod goes to this node.
    pub(crate) fn assume(&mut self, pod: PodInfo, node: &str) {
        self.place(pod, node, true);
    }

    /// The decision came to nothing. What the API has confirmed since stays.
    pub(crate) fn forget(&mut self, uid: &str) {
        if self.places.get(uid).is_some_and(|place| place.assumed) {
            self.remove(uid);
        }
    }

    /// The pod uses nothing any more.
    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        if let Some(info) = self.nodes.get_mut(&place.node) {
            info.remove(uid);
        } else if let Some(pods) = self.homeless.get_mut(&place.node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.homeless.remove(&place.node);
            }
        }
    }

    fn place(&mut self, pod: PodInfo, node: &str, assumed: bool) {
        let uid = pod.pod.uid().to_owned();
        self.remove(&uid);
        self.places.insert(uid.clone(), Place { node: node.to_owned(), assumed });
        match self.nodes.get_mut(node) {
            Some(info) => info.add(pod),
            None => {
                self.homeless.entry(node.to_owned()).or_default().insert(uid, pod);
            }
        }
    }
}
