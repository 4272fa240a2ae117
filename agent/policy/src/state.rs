//! The cluster as policies see it: pods with their addresses and labels, namespaces with theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use trireme_client::{Object, labels::Labels};

use crate::objects::PodAddress;

/// A pod of this node that was given an address, which the API may not show yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The sandbox that has it.
    pub container_id: String,
    /// The pod's uid, if the runtime tells it.
    pub uid: Option<String>,
    /// The address.
    pub address: Ipv4Addr,
}

/// Namespace and name of a pod.
pub type PodKey = (String, String);

/// A pod with an address of its own.
#[derive(Debug)]
pub struct Pod {
    /// What the API says of it.
    pub object: Arc<PodAddress>,
    /// Its IPv4 addresses.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Whether it runs on this node.
    pub is_local: bool,
}

/// All that rules are made of.
#[derive(Debug, Default)]
pub struct State {
    /// Every policy.
    pub policies: Vec<Arc<NetworkPolicy>>,
    /// Labels of the namespaces.
    pub namespaces: BTreeMap<String, Labels>,
    /// Pods by namespace.
    pub pods: BTreeMap<String, Vec<Pod>>,
    /// Sandboxes whose pods the API does not show yet.
    pub unknown: BTreeSet<String>,
}

impl State {
    /// Joins what the API shows with what pods of this node were given.
    pub fn new(
        node_name: &str,
        policies: Vec<Arc<NetworkPolicy>>,
        namespaces: &[Arc<Namespace>],
        pods: Vec<Arc<PodAddress>>,
        attached: &BTreeMap<PodKey, Attached>,
    ) -> State {
        let labels = |namespace: &Arc<Namespace>| (namespace.name().to_owned(), namespace.metadata.labels.clone().unwrap_or_default());
        let mut state = State { policies, namespaces: namespaces.iter().map(labels).collect(), ..State::default() };
        state.unknown = attached.values().map(|given| given.container_id.clone()).collect();
        let holders: BTreeMap<Ipv4Addr, (&PodKey, &Attached)> = attached.iter().map(|(pod, given)| (given.address, (pod, given))).collect();
        for object in pods.into_iter().filter(|pod| !pod.host_network && !pod.ended) {
            let is_local = object.node_name == node_name;
            let is_holder =
                |(pod, given): (&PodKey, &Attached)| pod.0 == object.namespace() && pod.1 == object.name() && is_of(given, &object);
            // An address that was given to a new pod may still be shown as that of the pod that had it before.
            let is_own = |address: &Ipv4Addr| !is_local || holders.get(address).is_none_or(|holder| is_holder(*holder));
            let mut addresses: BTreeSet<Ipv4Addr> =
                object.addresses.iter().filter_map(|address| address.parse().ok()).filter(is_own).collect();
            if is_local {
                for (address, (_, given)) in holders.iter().filter(|(_, holder)| is_holder(**holder)) {
                    addresses.insert(*address);
                    state.unknown.remove(&given.container_id);
                }
            }
            state.pods.entry(object.namespace().to_owned()).or_default().push(Pod { object, addresses, is_local });
        }
        state
    }
}

/// Whether this pod, and not a namesake that came before or after it, was given the address.
fn is_of(attached: &Attached, pod: &PodAddress) -> bool {
    attached.uid.as_deref().is_none_or(|uid| uid == pod.uid())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(name: &str, address: &str) -> Arc<PodAddress> {
        let metadata = serde_json::json!({"namespace": "a", "name": name, "uid": name});
        Arc::new(PodAddress {
            metadata: serde_json::from_value(metadata).unwrap(),
            node_name: "n1".into(),
            addresses: vec![address.into()],
            ..PodAddress::default()
        })
    }

    #[test]
    fn an_address_that_was_given_again_is_no_longer_that_of_the_pod_before() {
        let given = Attached { container_id: "c".into(), uid: None, address: "10.42.0.2".parse().unwrap() };
        let attached = BTreeMap::from([(("a".to_owned(), "new".to_owned()), given)]);
        let state = State::new("n1", Vec::new(), &[], vec![pod("old", "10.42.0.2"), pod("new", "")], &attached);
        let count = |name: &str| state.pods["a"].iter().find(|pod| pod.object.name() == name).unwrap().addresses.len();
        assert_eq!((count("old"), count("new")), (0, 1));
    }
}
