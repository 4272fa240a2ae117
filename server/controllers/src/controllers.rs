//! The list of all controllers.
//!
//! Owns their names, as upstream's `--controllers` spells them, and what is said of those that are not here. [`Switches`] decides
//! which of them run.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;

use crate::cluster::{custom_resources::CustomResources, garbage, namespace::NamespaceDeletion};
use crate::identity::cluster_role::ClusterRoleAggregation;
use crate::identity::csr::{self, CertificateRequests};
use crate::identity::root_ca::RootCaPublisher;
use crate::identity::service_account::DefaultServiceAccounts;
use crate::identity::token_cleaner::TokenCleaner;
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
use crate::runtime::{Controller, Declaration};
use crate::storage::attach_detach::AttachDetach;
use crate::storage::ephemeral::EphemeralVolumes;
use crate::storage::expansion::Expansion;
use crate::storage::local_provisioner::LocalProvisioner;
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

/// A controller under a name that it can be switched off by. Two may share one.
pub(crate) struct Entry {
    /// The parts of one controller that upstream has as several have several names. It runs while one of them is on.
    pub(crate) names: &'static [&'static str],
    pub(crate) home: Home,
    pub(crate) declaration: Declaration,
}

/// Where upstream has a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In kube-controller-manager.
    Manager,
    /// Elsewhere, or nowhere: it runs whatever becomes of kube-controller-manager's.
    Elsewhere,
}

impl Entry {
    fn of<C: Controller>(names: &'static [&'static str]) -> Self {
        Self { names, home: Home::Manager, declaration: Declaration::of::<C>() }
    }

    fn elsewhere<C: Controller>(names: &'static [&'static str]) -> Self {
        Self { home: Home::Elsewhere, ..Self::of::<C>(names) }
    }
}

/// Every controller. A line here is all that a new one needs beside its file.
pub(crate) fn all() -> Vec<Entry> {
    vec![
        Entry::of::<Replicas<ReplicaSet>>(&["replicaset-controller"]),
        Entry::of::<Replicas<ReplicationController>>(&["replicationcontroller-controller"]),
        Entry::of::<Deployments>(&["deployment-controller"]),
        Entry::of::<StatefulSets>(&["statefulset-controller"]),
        Entry::of::<DaemonSets>(&["daemonset-controller"]),
        Entry::of::<Jobs>(&["job-controller"]),
        Entry::of::<CronJobs>(&["cronjob-controller"]),
        Entry::of::<TtlAfterFinished>(&["ttl-after-finished-controller"]),
        Entry::of::<Autoscalers>(&["horizontal-pod-autoscaler-controller"]),
        Entry::of::<EndpointSlices>(&["endpointslice-controller"]),
        Entry::of::<EndpointSliceMirroring>(&["endpointslice-mirroring-controller"]),
        Entry::of::<EndpointsController>(&["endpoints-controller"]),
        Entry::elsewhere::<LoadBalancers>(&["service-lb-controller"]),
        Entry::of::<NamespaceDeletion>(&["namespace-controller"]),
        Entry::elsewhere::<CustomResources>(&["customresourcedefinition-controller"]),
        Entry::of::<DefaultServiceAccounts>(&["serviceaccount-controller"]),
        Entry::of::<TokenSecrets>(&["serviceaccount-token-controller"]),
        Entry::of::<TokenCleaner>(&["token-cleaner-controller"]),
        Entry::of::<RootCaPublisher>(&["root-ca-certificate-publisher-controller"]),
        Entry::of::<NodeLifecycle>(&["node-lifecycle-controller"]),
        Entry::of::<TaintEviction>(&["taint-eviction-controller"]),
        Entry::of::<NodeIpam>(&["node-ipam-controller"]),
        Entry::of::<PodGc>(&["pod-garbage-collector-controller"]),
        Entry::of::<DisruptionBudgets>(&["disruption-controller"]),
        Entry::of::<StaleDisruptions>(&["disruption-controller"]),
        Entry::of::<Quotas>(&["resourcequota-controller"]),
        Entry::elsewhere::<UnenforcedPolicies>(&["networkpolicy-controller"]),
        Entry::of::<VolumeBinder>(&["persistentvolume-binder-controller"]),
        Entry::elsewhere::<LocalProvisioner>(&["local-path-provisioner-controller"]),
        Entry::of::<EphemeralVolumes>(&["ephemeral-volume-controller"]),
        Entry::of::<AttachDetach>(&["persistentvolume-attach-detach-controller"]),
        Entry::of::<Expansion>(&["persistentvolume-expander-controller"]),
        Entry::of::<ClaimProtection>(&["persistentvolumeclaim-protection-controller"]),
        Entry::of::<VolumeProtection>(&["persistentvolume-protection-controller"]),
        Entry::of::<CertificateRequests>(&[csr::APPROVING, csr::SIGNING, csr::CLEANER]),
        Entry::of::<ClusterRoleAggregation>(&["clusterrole-aggregation-controller"]),
        Entry { names: &["garbage-collector-controller"], home: Home::Manager, declaration: garbage::declaration() },
    ]
}

/// Controllers of upstream's 1.36 that are not here, each with what that means for the cluster.
pub(crate) const ABSENT: &[(&str, &str)] = &[
    (
        "bootstrap-signer-controller",
        "not yet: the ConfigMap cluster-info in kube-public is not signed; nodes join by tokens of `trireme token`",
    ),
    ("cloud-node-lifecycle-controller", "a cloud's own controller manager brings it"),
    ("device-taint-eviction-controller", "not yet: dynamic resource allocation"),
    ("kube-apiserver-serving-clustertrustbundle-publisher-controller", "off by default upstream, as the API that it needs"),
    ("legacy-serviceaccount-token-cleaner-controller", "not yet: unused tokens in Secrets stay"),
    ("node-route-controller", "a cloud's own controller manager brings it; nodes set their routes themselves"),
    ("podcertificaterequest-cleaner-controller", "off by default upstream, as the API that it needs"),
    ("podgroup-protection-controller", "off by default upstream, as the API that it needs"),
    ("resourceclaim-controller", "not yet: dynamic resource allocation; a pod with claims stays pending and says so"),
    ("resourcepoolstatusrequest-controller", "off by default upstream, as the API that it needs"),
    ("selinux-warning-controller", "off by default upstream"),
    ("service-cidr-controller", "not yet: a ServiceCIDR that is added is not used; the first one is"),
    ("storage-version-migrator-controller", "off by default upstream, as the API that it needs"),
    ("storageversion-garbage-collector-controller", "off by default upstream, as the API that it needs"),
    ("ttl-controller", "not needed: kubelets watch what their pods use"),
    ("validatingadmissionpolicy-status-controller", "not yet: expressions are checked when a policy is written, not against types"),
    ("volumeattributesclass-protection-controller", "not yet: CSI drivers"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_here_or_absent() {
        let here: Vec<&str> = all().iter().flat_map(|entry| entry.names).copied().collect();
        let both: Vec<_> = ABSENT.iter().map(|(name, _)| *name).filter(|name| here.contains(name)).collect();
        assert!(both.is_empty(), "{both:?}");
        assert!(ABSENT.is_sorted(), "in order of the alphabet");
        assert!(here.iter().chain(ABSENT.iter().map(|(name, _)| name)).all(|name| name.ends_with("-controller")));
    }
}
