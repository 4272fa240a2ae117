//! The informers that all controllers of a server share.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, Informer, InformerOptions, Object};

use crate::node_lifecycle::NodeSeen;
use crate::owners;

/// The name under which the informers list and watch (upstream: the controller manager's own identity).
pub const SHARED_INFORMERS: &str = "shared-informers";

/// Index of pods and ReplicaSets by the uid of their controller.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// Index of pods by node.
pub(crate) const BY_NODE: &str = "node";
/// Index of EndpointSlices by namespace and Service.
pub(crate) const BY_SERVICE: &str = "service";
/// The label that ties an EndpointSlice to its Service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Local copies of what the controllers read.
pub struct InformerSet {
    /// All pods.
    pub pods: Arc<Informer<Pod>>,
    /// All nodes.
    pub nodes: Arc<Informer<Node>>,
    /// All Services.
    pub services: Arc<Informer<Service>>,
    /// All Deployments.
    pub deployments: Arc<Informer<Deployment>>,
    /// All ReplicaSets.
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    /// All EndpointSlices.
    pub endpoint_slices: Arc<Informer<EndpointSlice>>,
    /// All Endpoints.
    pub endpoints: Arc<Informer<Endpoints>>,
    /// All namespaces.
    pub namespaces: Arc<Informer<Namespace>>,
    /// The `default` ServiceAccounts.
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    /// The `kube-root-ca.crt` ConfigMaps.
    pub root_cas: Arc<Informer<ConfigMap>>,
    /// The Leases of nodes.
    pub node_leases: Arc<Informer<Lease>>,
    /// All certificate requests.
    pub csrs: Arc<Informer<CertificateSigningRequest>>,
    /// All ClusterRoles.
    pub cluster_roles: Arc<Informer<ClusterRole>>,
    /// When each node was last heard of.
    pub(crate) node_seen: Arc<NodeSeen>,
}

impl InformerSet {
    pub(crate) fn start(client: &Client, cancel: &CancellationToken) -> Self {
        let all = InformerOptions::default;
        let named = |name: &str| InformerOptions { field_selector: Some(format!("metadata.name={name}")), ..InformerOptions::default() };
        macro_rules! start {
            ($options:expr) => {
                Informer::start(client.clone(), $options, cancel.clone())
            };
        }
        let nodes = start!(all());
        let node_leases = start!(InformerOptions { namespace: Some("kube-node-lease".to_owned()), ..InformerOptions::default() });
        let set = Self {
            node_seen: NodeSeen::start(&nodes, &node_leases),
            pods: start!(all()),
            nodes,
            services: start!(all()),
            deployments: start!(all()),
            replica_sets: start!(all()),
            endpoint_slices: start!(all()),
            endpoints: start!(all()),
            namespaces: start!(all()),
            service_accounts: start!(named("default")),
            root_cas: start!(named("kube-root-ca.crt")),
            node_leases,
            csrs: start!(all()),
            cluster_roles: start!(all()),
        };
        set.pods.add_index(BY_CONTROLLER, controller_uid);
        set.replica_sets.add_index(BY_CONTROLLER, controller_uid);
        set.pods
            .add_index(BY_NODE, |pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).filter(|name| !name.is_empty()).collect());
        set.endpoint_slices.add_index(BY_SERVICE, |slice| {
            let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
            service.map(|service| format!("{}/{service}", slice.namespace())).into_iter().collect()
        });
        set
    }

    /// Waits until every informer has passed a revision.
    pub async fn ensure_revision(&self, revision: i64) {
        const PATIENCE: Duration = Duration::from_secs(1);
        macro_rules! all {
            ($($field:ident),*) => { tokio::join!($(self.$field.ensure_revision(revision, PATIENCE)),*) };
        }
        all!(
            pods,
            nodes,
            services,
            deployments,
            replica_sets,
            endpoint_slices,
            endpoints,
            namespaces,
            service_accounts,
            root_cas,
            node_leases,
            csrs,
            cluster_roles
        );
    }
}

fn controller_uid<T: Object>(object: &T) -> Vec<String> {
    owners::controller_of(object.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
}
