//! The cluster as policies see it: pods with their addresses and labels, namespaces with theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use k8s_openapi::api::{core::v1::Namespace, networking::v1::NetworkPolicy};
use trireme_client::{Object, labels::Labels};

use crate::objects::PodAddress;

/// Namespace and name of a pod.
pub type PodKey = (String, String);

/// A pod of this node that was given an address, which the API may not show yet, or no longer.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// The pod.
    pub pod: PodKey,
    /// Its uid, if the runtime tells it.
    pub uid: Option<String>,
    /// The address.
    pub address: Ipv4Addr,
    /// What the API said of it last: it may go from there before it has ended.
    pub seen: Option<Arc<PodAddress>>,
}

impl Attached {
    /// Whether this pod, and not a namesake that came before or after it, was given the address.
    pub fn is(&self, pod: &PodAddress) -> bool {
        self.pod.0 == pod.namespace() && self.pod.1 == pod.name() && self.uid.as_deref().is_none_or(|uid| uid == pod.uid())
    }
}

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
    /// Joins what the API shows with what pods of this node were given, by sandbox.
    pub fn new(
        node_name: &str,
        policies: Vec<Arc<NetworkPolicy>>,
        namespaces: &[Arc<Namespace>],
        mut pods: Vec<Arc<PodAddress>>,
        attached: &BTreeMap<String, Attached>,
    ) -> State {
        let labels = |namespace: &Arc<Namespace>| (namespace.name().to_owned(), namespace.metadata.labels.clone().unwrap_or_default());
        let mut state = State { policies, namespaces: namespaces.iter().map(labels).collect(), ..State::default() };
        // Only pods of this node are attached here: those of the whole cluster are many.
        let local: Vec<Arc<PodAddress>> = pods.iter().filter(|pod| pod.node_name == node_name).cloned().collect();
        for (container_id, given) in attached {
            match (local.iter().any(|pod| given.is(pod)), &given.seen) {
                (true, _) => {}
                (false, Some(seen)) => pods.push(seen.clone()),
                (false, None) => drop(state.unknown.insert(container_id.clone())),
            }
        }
        let holders: BTreeMap<Ipv4Addr, &Attached> = attached.values().map(|given| (given.address, given)).collect();
        for object in pods.into_iter().filter(|pod| !pod.host_network && !pod.ended) {
            let is_local = object.node_name == node_name;
            // An address that was given to a new pod may still be shown as that of the pod that had it before.
            let is_own = |address: &Ipv4Addr| !is_local || holders.get(address).is_none_or(|holder| holder.is(&object));
            let mut addresses: BTreeSet<Ipv4Addr> =
                object.addresses.iter().filter_map(|address| address.parse().ok()).filter(is_own).collect();
            if is_local {
                addresses.extend(holders.iter().filter(|(_, holder)| holder.is(&object)).map(|(address, _)| *address));
            }
            state.pods.entry(object.namespace().to_owned()).or_default().push(Pod { object, addresses, is_local });
        }
        state
    }
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
        let given = Attached { pod: ("a".into(), "new".into()), uid: None, address: "10.42.0.2".parse().unwrap(), seen: None };
        let attached = BTreeMap::from([("c".to_owned(), given)]);
        let state = State::new("n1", Vec::new(), &[], vec![pod("old", "10.42.0.2"), pod("new", "")], &attached);
        let count = |name: &str| state.pods["a"].iter().find(|pod| pod.object.name() == name).unwrap().addresses.len();
        assert_eq!((count("old"), count("new")), (0, 1));
    }

    #[test]
    fn a_pod_that_the_api_no_longer_shows_is_known_until_its_sandbox_is_gone() {
        let seen = Some(pod("gone", "10.42.0.2"));
        let given = Attached { pod: ("a".into(), "gone".into()), uid: Some("gone".into()), address: "10.42.0.2".parse().unwrap(), seen };
        let attached = BTreeMap::from([("c".to_owned(), given)]);
        // Its successor has its name.
        let mut successor = PodAddress::clone(&pod("gone", "10.42.0.3"));
        successor.metadata.uid = Some("new".into());
        let state = State::new("n1", Vec::new(), &[], vec![Arc::new(successor)], &attached);
        let addresses: BTreeSet<Ipv4Addr> = state.pods["a"].iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
        assert_eq!(addresses.len(), 2, "{addresses:?}");
        assert!(state.unknown.is_empty());
    }
}
