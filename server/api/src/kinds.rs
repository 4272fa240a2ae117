//! The built-in kinds: one file or folder for each, and this list of them.
//!
//! Everything specific to a kind is in its own file, as an implementation of [`Kind`]. To add a kind, write that file
//! and add one line below; its names, versions and verbs come from the generated table of [`crate::resources`], its types
//! from that of [`crate::schema`]. A kind without a line behaves as [`Plain`]. Generic code must not use this module: it goes
//! through the [`Definition`] of a resource.

pub(crate) mod admissionregistration;
pub(crate) mod apiextensions;
pub(crate) mod apiregistration;
pub(crate) mod apps;
pub(crate) mod authentication;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod certificates;
pub(crate) mod coordination;
pub(crate) mod core;
pub(crate) mod discovery;
pub(crate) mod flowcontrol;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod rbac;
pub(crate) mod resource;
pub(crate) mod scheduling;
pub(crate) mod storage;
pub(crate) mod text;
pub(crate) mod workload;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::meta;
use crate::resource::{Definer, Definition, Kind, Plain, Schema};
use crate::resources::{self, Resource};

/// Makes the table of kinds: `"group": "Kind" => type, ...;`.
macro_rules! kinds {
    ($($group:literal: $($kind:literal => $type:path,)* ;)*) => {
        vec![$($(($group, $kind, Arc::new($type) as Arc<dyn Kind>),)*)*]
    };
}

type Table = Vec<(&'static str, &'static str, Arc<dyn Kind>)>;

#[rustfmt::skip]
static KINDS: LazyLock<Table> = LazyLock::new(|| kinds! {
    "":
        "Binding" => core::binding::Binding,
        "ComponentStatus" => core::component_status::ComponentStatus,
        "ConfigMap" => core::config_map::ConfigMap,
        "Endpoints" => core::endpoints::Endpoints,
        "Event" => core::event::Event,
        "LimitRange" => core::limit_range::LimitRange,
        "Namespace" => core::namespace::Namespace,
        "Node" => core::node::Node,
        "PersistentVolume" => core::persistent_volume::PersistentVolume,
        "PersistentVolumeClaim" => core::persistent_volume_claim::PersistentVolumeClaim,
        "Pod" => core::pod::Pod,
        "PodTemplate" => core::pod_template::PodTemplate,
        "ReplicationController" => core::replication_controller::ReplicationController,
        "ResourceQuota" => core::resource_quota::ResourceQuota,
        "Secret" => core::secret::Secret,
        "Service" => core::service::Service,
        "ServiceAccount" => core::service_account::ServiceAccount,
    ;
    "admissionregistration.k8s.io":
        "MutatingAdmissionPolicy" => admissionregistration::mutating_admission_policy::MutatingAdmissionPolicy,
        "MutatingAdmissionPolicyBinding" => admissionregistration::mutating_admission_policy_binding::MutatingAdmissionPolicyBinding,
        "MutatingWebhookConfiguration" => admissionregistration::mutating_webhook_configuration::MutatingWebhookConfiguration,
        "ValidatingAdmissionPolicy" => admissionregistration::validating_admission_policy::ValidatingAdmissionPolicy,
        "ValidatingAdmissionPolicyBinding" => admissionregistration::validating_admission_policy_binding::ValidatingAdmissionPolicyBinding,
        "ValidatingWebhookConfiguration" => admissionregistration::validating_webhook_configuration::ValidatingWebhookConfiguration,
    ;
    "apiextensions.k8s.io":
        "CustomResourceDefinition" => apiextensions::custom_resource_definition::CustomResourceDefinition,
    ;
    "apiregistration.k8s.io":
        "APIService" => apiregistration::api_service::ApiService,
    ;
    "apps":
        "ControllerRevision" => apps::controller_revision::ControllerRevision,
        "DaemonSet" => apps::daemon_set::DaemonSet,
        "Deployment" => apps::deployment::Deployment,
        "ReplicaSet" => apps::replica_set::ReplicaSet,
        "StatefulSet" => apps::stateful_set::StatefulSet,
    ;
    "authentication.k8s.io":
        "TokenRequest" => authentication::token_request::TokenRequest,
    ;
    "autoscaling":
        "HorizontalPodAutoscaler" => autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscaler,
        "Scale" => autoscaling::scale::Scale,
    ;
    "batch":
        "CronJob" => batch::cron_job::CronJob,
        "Job" => batch::job::Job,
    ;
    "certificates.k8s.io":
        "CertificateSigningRequest" => certificates::certificate_signing_request::CertificateSigningRequest,
    ;
    "coordination.k8s.io":
        "Lease" => coordination::lease::Lease,
    ;
    "discovery.k8s.io":
        "EndpointSlice" => discovery::endpoint_slice::EndpointSlice,
    ;
    "events.k8s.io":
        "Event" => core::event::EventV1,
    ;
    "flowcontrol.apiserver.k8s.io":
        "FlowSchema" => flowcontrol::flow_schema::FlowSchema,
        "PriorityLevelConfiguration" => flowcontrol::priority_level_configuration::PriorityLevelConfiguration,
    ;
    "networking.k8s.io":
        "Ingress" => networking::ingress::Ingress,
        "IngressClass" => networking::ingress_class::IngressClass,
        "IPAddress" => networking::ip_address::IpAddress,
        "NetworkPolicy" => networking::network_policy::NetworkPolicy,
        "ServiceCIDR" => networking::service_cidr::ServiceCidr,
    ;
    "node.k8s.io":
        "RuntimeClass" => node::runtime_class::RuntimeClass,
    ;
    "policy":
        "PodDisruptionBudget" => policy::pod_disruption_budget::PodDisruptionBudget,
    ;
    "rbac.authorization.k8s.io":
        "ClusterRole" => rbac::cluster_role::ClusterRole,
        "ClusterRoleBinding" => rbac::cluster_role_binding::ClusterRoleBinding,
        "Role" => rbac::role::Role,
        "RoleBinding" => rbac::role_binding::RoleBinding,
    ;
    "resource.k8s.io":
        "DeviceClass" => resource::device_class::DeviceClass,
        "ResourceClaim" => resource::resource_claim::ResourceClaim,
        "ResourceClaimTemplate" => resource::resource_claim_template::ResourceClaimTemplate,
        "ResourceSlice" => resource::resource_slice::ResourceSlice,
    ;
    "scheduling.k8s.io":
        "PriorityClass" => scheduling::priority_class::PriorityClass,
    ;
    "storage.k8s.io":
        "CSIDriver" => storage::csi_driver::CsiDriver,
        "CSINode" => storage::csi_node::CsiNode,
        "CSIStorageCapacity" => storage::csi_storage_capacity::CsiStorageCapacity,
        "StorageClass" => storage::storage_class::StorageClass,
        "VolumeAttachment" => storage::volume_attachment::VolumeAttachment,
        "VolumeAttributesClass" => storage::volume_attributes_class::VolumeAttributesClass,
    ;
});

static DEFINITIONS: LazyLock<Vec<Arc<Definition>>> =
    LazyLock::new(|| resources::builtin().iter().map(|resource| Arc::new(definition(resource.clone()))).collect());

static BY_RESOURCE: LazyLock<HashMap<(&'static str, &'static str), Arc<Definition>>> = LazyLock::new(|| {
    let key = |resource: &'static Resource| (&*resource.group, &*resource.plural);
    resources::builtin().iter().map(key).zip(DEFINITIONS.iter().cloned()).collect()
});

/// The kind of a group and name; also of those that are only bodies of requests (`Scale`, `TokenRequest`).
pub fn of(group: &str, kind: &str) -> Arc<dyn Kind> {
    KINDS.iter().find(|(g, k, _)| *g == group && *k == kind).map_or_else(|| Arc::new(Plain) as Arc<dyn Kind>, |(_, _, kind)| kind.clone())
}

/// The definitions of all built-in resources, in the order of discovery.
pub fn builtin() -> &'static [Arc<Definition>] {
    &DEFINITIONS
}

/// A resource that is served and not in discovery: another view of the objects of a built-in one.
pub struct Unlisted {
    /// The view.
    pub definition: Arc<Definition>,
    /// Group and plural of the resource whose objects it shows.
    pub of: (&'static str, &'static str),
}

/// All unlisted resources.
pub fn unlisted() -> Vec<Unlisted> {
    vec![Unlisted { definition: Arc::new(core::pod::address::definition()), of: ("", "pods") }]
}

/// The definition of a built-in resource.
pub fn find(group: &str, plural: &str) -> Option<Arc<Definition>> {
    BY_RESOURCE.get(&(group, plural)).cloned()
}

/// A pod's quality of service class (`Guaranteed`, `Burstable` or `BestEffort`): what its status says, or else what its containers ask for.
pub fn qos_class(pod: &Value) -> &str {
    let class = meta::str_at(pod, &["status", "qosClass"]);
    if class.is_empty() { core::pod::qos::class(pod) } else { class }
}

fn definition(resource: Resource) -> Definition {
    let kind = of(&resource.group, &resource.kind);
    let definer = definer(&resource.group, &resource.kind);
    let mut definition = Definition::new(Arc::new(resource), Schema::Builtin, kind);
    definition.definer = definer;
    definition
}

/// The kinds whose objects define resources.
fn definer(group: &str, kind: &str) -> Option<Arc<dyn Definer>> {
    match (group, kind) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            Some(Arc::new(apiextensions::custom_resource_definition::CustomResourceDefinition))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
