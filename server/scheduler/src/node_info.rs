//! A node with what runs on it. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use trireme_client::Object;

use crate::affinity::Terms;
use crate::resources::{self, Amounts};

/// A port that a pod takes on the host: address (empty is all), protocol, number.
pub(crate) type HostPort = (String, String, i32);

/// A pod with what is asked of it again and again.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) priority: i32,
    pub(crate) requests: Amounts,
    /// With scoring's defaults.
    pub(crate) scored_requests: Amounts,
    pub(crate) host_ports: Vec<HostPort>,
    /// Its terms of affinity and anti-affinity to other pods.
    pub(crate) terms: Option<Terms>,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        Self {
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
            requests: resources::requests(&pod, false),
            scored_requests: resources::requests(&pod, true),
            host_ports: host_ports(&pod),
            terms: Terms::of(&pod),
            pod,
        }
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.uid()
    }

    /// When the kubelet started it, in seconds; a pod that has not started sorts last.
    pub(crate) fn started_secs(&self) -> i64 {
        let time = self.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        time.map_or(i64::MAX, |time| time.0.as_second())
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let host_network = spec.host_network == Some(true);
    let sidecars = spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|port| *port > 0).or(host_network.then_some(port.container_port))?;
            let address = port.host_ip.clone().filter(|ip| ip != "0.0.0.0" && ip != "::").unwrap_or_default();
            Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
        })
        .collect()
}

/// A node and its pods, assumed ones included.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub(crate) node: Arc<Node>,
    pub(crate) allocatable: Amounts,
    pub(crate) requested: Amounts,
    pub(crate) scored_requested: Amounts,
    pub(crate) pods: BTreeMap<String, Arc<PodInfo>>,
    /// The pods among them that have terms of affinity or anti-affinity.
    pub(crate) wishing: BTreeMap<String, Arc<PodInfo>>,
    pub(crate) used_ports: BTreeSet<HostPort>,
}

impl NodeInfo {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            node: Arc::clone(&node),
            allocatable: Amounts::default(),
            requested: Amounts::default(),
            scored_requested: Amounts::default(),
            pods: BTreeMap::new(),
            wishing: BTreeMap::new(),
            used_ports: BTreeSet::new(),
        };
        info.set_node(node);
        info
    }

    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = Amounts::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.node = node;
    }

    pub(crate) fn name(&self) -> &str {
        self.node.name()
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(pod.uid());
        self.requested.add(&pod.requests);
        self.scored_requested.add(&pod.scored_requests);
        self.used_ports.extend(pod.host_ports.iter().cloned());
        if pod.terms.is_some() {
            self.wishing.insert(pod.uid().to_owned(), Arc::clone(&pod));
        }
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.wishing.remove(uid);
        self.requested.subtract(&pod.requests);
        self.scored_requested.subtract(&pod.scored_requests);
        if !pod.host_ports.is_empty() {
            self.used_ports = self.pods.values().flat_map(|pod| pod.host_ports.iter().cloned()).collect();
        }
    }
}
