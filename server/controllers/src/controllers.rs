//! The list of all controllers.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;

use crate::cluster::{custom_resources::CustomResources, garbage, namespace::NamespaceDeletion};
use crate::identity::cluster_role::ClusterRoleAggregation;
use crate::identity::csr::CertificateRequests;
use crate::identity::root_ca::RootCaPublisher;
use crate::identity::service_account::DefaultServiceAccounts;
use crate::identity::token_secret::TokenSecrets;
use crate::network::endpoint_slice::EndpointSlices;
use crate::network::endpoint_slice_mirroring::EndpointSliceMirroring;
use crate::network::endpoints::EndpointsController;
use crate::network::load_balancer::LoadBalancers;
use crate::nodes::ipam::NodeIpam;
use crate::nodes::lifecycle::{NodeLifecycle, eviction::TaintEviction};
use crate::nodes::pod_gc::PodGc;
use crate::policy::disruption::{DisruptionBudgets, StaleDisruptions};
use crate::policy::network_policy::UnenforcedPolicies;
use crate::policy::quota::Quotas;
use crate::runtime::Declaration;
use crate::storage::ephemeral::EphemeralVolumes;
use crate::storage::protection::{ClaimProtection, VolumeProtection};
use crate::storage::volume_binder::VolumeBinder;
use crate::workloads::autoscaler::Autoscalers;
use crate::workloads::cron_job::CronJobs;
use crate::workloads::daemon_set::DaemonSets;
use crate::workloads::deployment::Deployments;
use crate::workloads::job::Jobs;
use crate::workloads::replicas::Replicas;
use crate::workloads::stateful_set::StatefulSets;
use crate::workloads::ttl_after_finished::TtlAfterFinished;

/// Every controller. A line here is all that a new one needs beside its file.
pub(crate) fn all() -> Vec<Declaration> {
    vec![
        Declaration::of::<Replicas<ReplicaSet>>(),
        Declaration::of::<Replicas<ReplicationController>>(),
        Declaration::of::<Deployments>(),
        Declaration::of::<StatefulSets>(),
        Declaration::of::<DaemonSets>(),
        Declaration::of::<Jobs>(),
        Declaration::of::<CronJobs>(),
        Declaration::of::<TtlAfterFinished>(),
        Declaration::of::<Autoscalers>(),
        Declaration::of::<EndpointSlices>(),
        Declaration::of::<EndpointSliceMirroring>(),
        Declaration::of::<EndpointsController>(),
        Declaration::of::<LoadBalancers>(),
        Declaration::of::<NamespaceDeletion>(),
        Declaration::of::<CustomResources>(),
        Declaration::of::<DefaultServiceAccounts>(),
        Declaration::of::<TokenSecrets>(),
        Declaration::of::<RootCaPublisher>(),
        Declaration::of::<NodeLifecycle>(),
        Declaration::of::<TaintEviction>(),
        Declaration::of::<NodeIpam>(),
        Declaration::of::<PodGc>(),
        Declaration::of::<DisruptionBudgets>(),
        Declaration::of::<StaleDisruptions>(),
        Declaration::of::<Quotas>(),
        Declaration::of::<UnenforcedPolicies>(),
        Declaration::of::<VolumeBinder>(),
        Declaration::of::<EphemeralVolumes>(),
        Declaration::of::<ClaimProtection>(),
        Declaration::of::<VolumeProtection>(),
        Declaration::of::<CertificateRequests>(),
        Declaration::of::<ClusterRoleAggregation>(),
        garbage::declaration(),
    ]
}
