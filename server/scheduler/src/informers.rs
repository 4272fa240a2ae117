//! The informers that a scheduler reads.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use trireme_client::Informer;

/// How long an informer may be silent before it is asked how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// The informers that a scheduler reads. Share them with the controllers of the same server.
#[derive(Clone)]
pub struct SchedulerInformers {
    /// All pods.
    pub pods: Arc<Informer<Pod>>,
    /// All nodes.
    pub nodes: Arc<Informer<Node>>,
    /// All namespaces (pod affinity can select them by label).
    pub namespaces: Arc<Informer<Namespace>>,
    /// All disruption budgets (preemption spares what they protect, where it can).
    pub budgets: Arc<Informer<PodDisruptionBudget>>,
    /// All Services (the pods of each are spread by default).
    pub services: Arc<Informer<Service>>,
    /// All ReplicationControllers, as for Services.
    pub replication_controllers: Arc<Informer<ReplicationController>>,
    /// All ReplicaSets, as for Services.
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    /// All StatefulSets, as for Services.
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    /// All claims (a pod goes where its volumes are).
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    /// All volumes.
    pub volumes: Arc<Informer<PersistentVolume>>,
    /// All storage classes.
    pub classes: Arc<Informer<StorageClass>>,
}

impl SchedulerInformers {
    /// Waits until everything up to this revision is in.
    pub(crate) async fn ensure_revision(&self, revision: i64) {
        tokio::join!(
            self.pods.ensure_revision(revision, PATIENCE),
            self.nodes.ensure_revision(revision, PATIENCE),
            self.namespaces.ensure_revision(revision, PATIENCE),
            self.budgets.ensure_revision(revision, PATIENCE),
            self.services.ensure_revision(revision, PATIENCE),
            self.replication_controllers.ensure_revision(revision, PATIENCE),
            self.replica_sets.ensure_revision(revision, PATIENCE),
            self.stateful_sets.ensure_revision(revision, PATIENCE),
            self.claims.ensure_revision(revision, PATIENCE),
            self.volumes.ensure_revision(revision, PATIENCE),
            self.classes.ensure_revision(revision, PATIENCE),
        );
    }
}
