//! The objects beyond nodes and pods that plugins look up.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};

use crate::informers::SchedulerInformers;

/// The rest of the cluster, looked up when it is needed: most pods need none of it.
pub(crate) trait World {
    /// A namespace.
    fn namespace(&self, name: &str) -> Option<Arc<Namespace>>;

    /// All disruption budgets.
    fn budgets(&self) -> Vec<Arc<PodDisruptionBudget>>;

    /// The Services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Arc<Service>>;

    /// The selector of the ReplicationController, ReplicaSet or StatefulSet that owns a pod of the namespace.
    fn workload_selector(&self, namespace: &str, owner: &OwnerReference) -> Option<LabelSelector>;

    /// A claim.
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;

    /// A volume.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;

    /// All volumes.
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;

    /// A storage class.
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
}

impl World for SchedulerInformers {
    fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get("", name)
    }

    fn budgets(&self) -> Vec<Arc<PodDisruptionBudget>> {
        self.budgets.list()
    }

    fn services(&self, namespace: &str) -> Vec<Arc<Service>> {
        self.services.list_namespace(namespace)
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get("", name)
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.list()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get("", name)
    }

    fn workload_selector(&self, namespace: &str, owner: &OwnerReference) -> Option<LabelSelector> {
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => {
                let found = self.replication_controllers.get(namespace, &owner.name)?;
                let labels = found.spec.as_ref()?.selector.clone();
                Some(LabelSelector { match_labels: labels, ..LabelSelector::default() })
            }
            ("apps/v1", "ReplicaSet") => Some(self.replica_sets.get(namespace, &owner.name)?.spec.as_ref()?.selector.clone()),
            ("apps/v1", "StatefulSet") => Some(self.stateful_sets.get(namespace, &owner.name)?.spec.as_ref()?.selector.clone()),
            _ => None,
        }
    }
}
