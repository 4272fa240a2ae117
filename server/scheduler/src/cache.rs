//! The nodes with the pods on them, as far as we know: what the informers say, plus what we have decided and not yet seen
//! confirmed. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use trireme_client::Object;

use crate::framework::Snapshot;
use crate::node_info::{NodeInfo, PodInfo};
use crate::nominations::Nominations;
use crate::world::World;

#[derive(Default)]
pub(crate) struct Cache {
    nodes: BTreeMap<String, NodeInfo>,
    /// The node of each pod, and whether the placement is only assumed.
    places: HashMap<String, Place>,
    /// Pods on nodes that we do not know (yet).
    homeless: HashMap<String, BTreeMap<String, Arc<PodInfo>>>,
    nominations: Nominations,
    /// Pods on nodes whose deletion we asked for.
    doomed: HashSet<String>,
    /// Volumes that assumed pods will get, by name, with the uid of the claim.
    promised: HashMap<String, String>,
}

struct Place {
    node: String,
    assumed: bool,
}

impl Cache {
    /// The snapshot for one decision.
    pub(crate) fn snapshot<'a>(&'a self, world: &'a dyn World) -> Snapshot<'a> {
        Snapshot {
            nodes: self.nodes.values().collect(),
            nominated: &self.nominations,
            doomed: &self.doomed,
            promised: &self.promised,
            world,
        }
    }

    /// The numbers of nodes, of placed pods, and of assumed pods among them.
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
        let uid = pod.uid().to_owned();
        self.place(Arc::new(PodInfo::new(pod)), node, false);
        self.nominations.remove(&uid);
    }

    /// We decided that the pod goes to this node.
    pub(crate) fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.nominations.remove(pod.uid());
        self.place(pod, node, true);
    }

    /// A volume goes to the claim with this uid, or does not any more.
    pub(crate) fn promise(&mut self, volume: &str, claim: Option<&str>) {
        match claim {
            Some(claim) => {
                self.promised.insert(volume.to_owned(), claim.to_owned());
            }
            None => {
                self.promised.remove(volume);
            }
        }
    }

    /// Whether we decided on a node, and the API has not said so yet.
    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.places.get(uid).is_some_and(|place| place.assumed)
    }

    /// Undoes an assumed placement. A pod that the API server has confirmed since then stays.
    pub(crate) fn forget(&mut self, uid: &str) {
        if self.is_assumed(uid) {
            self.remove(uid);
        }
    }

    /// The pod uses nothing any more; whether it did.
    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        self.doomed.remove(uid);
        let claimed = self.nominations.remove(uid);
        self.displace(uid) || claimed
    }

    /// Nominates this node for the pod.
    pub(crate) fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        if !self.places.contains_key(pod.uid()) {
            self.nominations.set(pod, node);
        }
    }

    /// The pod's nominated node.
    pub(crate) fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominations.node_of(uid)
    }

    /// Withdraws the nomination of the pod; returns whether it had one.
    pub(crate) fn withdraw(&mut self, uid: &str) -> bool {
        self.nominations.remove(uid)
    }

    /// The pods below this priority that are nominated for the node.
    pub(crate) fn nominated_below(&self, node: &str, priority: i32) -> Vec<Arc<PodInfo>> {
        self.nominations.on(node).filter(|pod| pod.priority < priority).cloned().collect()
    }

    /// We ask for the pod's deletion, or failed to (`doomed` is false).
    pub(crate) fn set_doomed(&mut self, uid: &str, doomed: bool) {
        if doomed && self.places.contains_key(uid) {
            self.doomed.insert(uid.to_owned());
        } else {
            self.doomed.remove(uid);
        }
    }

    fn displace(&mut self, uid: &str) -> bool {
        let Some(place) = self.places.remove(uid) else { return false };
        if let Some(info) = self.nodes.get_mut(&place.node) {
            info.remove(uid);
        } else if let Some(pods) = self.homeless.get_mut(&place.node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.homeless.remove(&place.node);
            }
        }
        true
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        let uid = pod.uid().to_owned();
        self.displace(&uid);
        self.places.insert(uid.clone(), Place { node: node.to_owned(), assumed });
        match self.nodes.get_mut(node) {
            Some(info) => info.add(pod),
            None => {
                self.homeless.entry(node.to_owned()).or_default().insert(uid, pod);
            }
        }
    }
}
