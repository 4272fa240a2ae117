//! Small clusters for unit tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use trireme_client::Object;

use crate::cache::Cache;
use crate::decide::{Decision, View, Waiting, decide};
use crate::framework::Plugin;
use crate::node_info::PodInfo;
use crate::plugins::default_plugins;
use crate::world::World;

pub(crate) fn object<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

pub(crate) fn node(name: &str, cpu: &str, extra: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}},
    });
    merge(&mut node, extra);
    object(node)
}

pub(crate) fn pod(name: &str, cpu: &str, extra: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    });
    merge(&mut pod, extra);
    object(pod)
}

pub(crate) fn priority(priority: i32) -> Value {
    json!({"spec": {"priority": priority}})
}

pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The objects beside nodes and pods.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) namespaces: Vec<Arc<Namespace>>,
    pub(crate) budgets: Vec<Arc<PodDisruptionBudget>>,
    pub(crate) services: Vec<Arc<Service>>,
    /// Selectors by the owner's name.
    pub(crate) workloads: BTreeMap<String, LabelSelector>,
    pub(crate) claims: Vec<Arc<PersistentVolumeClaim>>,
    pub(crate) volumes: Vec<Arc<PersistentVolume>>,
    pub(crate) classes: Vec<Arc<StorageClass>>,
}

impl World for Surroundings {
    fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.iter().find(|namespace| namespace.name() == name).cloned()
    }

    fn budgets(&self) -> Vec<Arc<PodDisruptionBudget>> {
        self.budgets.clone()
    }

    fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.services.iter().filter(|service| service.namespace() == namespace).cloned().collect()
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.iter().find(|claim| claim.namespace() == namespace && claim.name() == name).cloned()
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| volume.name() == name).cloned()
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.clone()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.iter().find(|class| class.name() == name).cloned()
    }

    fn workload_selector(&self, _namespace: &str, owner: &OwnerReference) -> Option<LabelSelector> {
        self.workloads.get(&owner.name).cloned()
    }
}

/// A cluster whose pods are where the scheduler puts them.
pub(crate) struct Cluster {
    pub(crate) cache: Cache,
    pub(crate) world: Surroundings,
    pub(crate) plugins: Vec<Box<dyn Plugin>>,
}

impl Cluster {
    pub(crate) fn new(nodes: Vec<Arc<Node>>) -> Self {
        let mut cache = Cache::default();
        nodes.into_iter().for_each(|node| cache.set_node(node));
        Self { cache, world: Surroundings::default(), plugins: default_plugins() }
    }

    /// A pod that runs.
    pub(crate) fn run(&mut self, pod: &Arc<Pod>, node: &str) {
        self.cache.confirm(Arc::clone(pod), node);
    }

    pub(crate) fn decide(&self, pod: &Arc<Pod>) -> Decision {
        let info = PodInfo::new(Arc::clone(pod));
        decide(&self.plugins, &info, &self.cache.snapshot(&self.world), 0)
    }

    /// Decides, and puts the pod where it is to go. Without a node: what is said about it.
    pub(crate) fn place(&mut self, pod: &Arc<Pod>) -> Result<String, String> {
        match self.decide(pod) {
            Decision::Bind(node, steps) => {
                steps.take.iter().for_each(|(volume, claim)| self.cache.promise(volume.name(), Some(claim.uid())));
                self.cache.assume(Arc::new(PodInfo::new(Arc::clone(pod))), &node);
                Ok(node)
            }
            Decision::Wait(waiting) => Err(waiting.message),
        }
    }

    /// Decides about a pod that fits nowhere, and nominates it if it has victims: the node and their names.
    pub(crate) fn preempt(&mut self, pod: &Arc<Pod>) -> Result<(String, Vec<String>), String> {
        match self.decide(pod) {
            Decision::Bind(node, _) => panic!("{} fits on {node}", pod.name()),
            Decision::Wait(Waiting { view: View::Preempt { node, victims }, .. }) => {
                victims.iter().for_each(|victim| self.cache.set_doomed(victim.uid(), true));
                self.cache.nominate(Arc::new(PodInfo::new(Arc::clone(pod))), &node);
                Ok((node, victims.iter().map(|victim| victim.pod.name().to_owned()).collect()))
            }
            Decision::Wait(waiting) => Err(waiting.message),
        }
    }
}

pub(crate) fn refused(message: &str) -> Result<String, String> {
    Err(message.to_owned())
}

pub(crate) fn placed(node: &str) -> Result<String, String> {
    Ok(node.to_owned())
}
