//! Validation of built-in kinds: upstream's rules, field paths and words.
//!
//! Objects come decoded and defaulted. Owns what an object may say by itself and what an update may change; must not
//! look at other objects (that is admission), allocate, or read a clock. Kinds without rules of their own here are
//! checked by their schema and their metadata alone, and [`crate::coverage`] says so. Upstream:
//! `pkg/apis/*/validation`.

mod at;
mod batch;
mod container;
mod core;
mod diff;
mod handler;
mod metadata;
mod network;
mod other;
mod pod;
mod rbac;
mod registration;
mod requirements;
mod schedule;
mod scheduling;
mod security;
mod service;
mod storage;
mod volume;
mod workload;

use serde_json::Value;

pub(crate) use self::at::same;
use self::at::{At, Errors};
use self::metadata::NameRule;
use crate::field::FieldErrors;
use crate::gvk::GroupVersionKind;
use crate::names;

/// Checks a new object. Its name is generated, its namespace and UID are set.
pub fn create(gvk: &GroupVersionKind, object: &Value) -> FieldErrors {
    let errors = Errors::default();
    let at = At::root(object, &errors);
    let (group, kind) = (gvk.group.as_ref(), gvk.kind.as_ref());
    if has_metadata(group, kind) {
        metadata::create(&at.at("metadata"), namespaced(group, kind), name_rule(group, kind));
    }
    whole(group, kind, &at, Moment::Create);
    errors.take()
}

/// Checks a changed object against what is stored. Both are defaulted and prepared.
pub fn update(gvk: &GroupVersionKind, object: &Value, old: &Value) -> FieldErrors {
    let errors = Errors::default();
    let at = At::root(object, &errors);
    let before = At::root(old, &errors);
    metadata::update(&at.at("metadata"), &before.at("metadata"));
    let (group, kind) = (gvk.group.as_ref(), gvk.kind.as_ref());
    if !changes(group, kind, &at, &before) {
        whole(group, kind, &at, Moment::Update(&before));
    }
    frozen(group, kind, &at, &before);
    errors.take()
}

/// Checks an update of the `status` subresource (and of `approval`, for certificate requests).
pub fn update_status(gvk: &GroupVersionKind, object: &Value, old: &Value) -> FieldErrors {
    let errors = Errors::default();
    let at = At::root(object, &errors);
    let before = At::root(old, &errors);
    metadata::update(&at.at("metadata"), &before.at("metadata"));
    match (gvk.group.as_ref(), gvk.kind.as_ref()) {
        ("", "Pod") => pod::update_status(&at, &before),
        ("", "Namespace") => core::namespace_status(&at),
        ("", "Node") => core::node_update(&at, &before),
        ("", "Service") => service::load_balancer_status(&at),
        ("", "ResourceQuota") => core::resource_quota(&at),
        ("", "ReplicationController") | ("apps" | "batch" | "autoscaling", _) => workload::status(&at),
        ("policy", "PodDisruptionBudget") => other::disruption_budget_status(&at),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            other::signing_request(&at);
            other::signing_request_update(&at, &before);
        }
        _ => {}
    }
    errors.take()
}

/// Checks an update of another subresource that carries the whole object: `ephemeralcontainers`, `resize`, `finalize`.
/// Unknown ones are checked as an update of the object.
pub fn update_subresource(gvk: &GroupVersionKind, subresource: &str, object: &Value, old: &Value) -> FieldErrors {
    let errors = Errors::default();
    let at = At::root(object, &errors);
    let before = At::root(old, &errors);
    let check = match (gvk.group.as_ref(), gvk.kind.as_ref(), subresource) {
        (_, _, "status" | "approval") => return update_status(gvk, object, old),
        ("", "Pod", "ephemeralcontainers") => pod::update_ephemeral,
        ("", "Pod", "resize") => pod::update_resize,
        ("", "Namespace", "finalize") => |at: &At<'_>, _: &At<'_>| core::namespace_finalize(at),
        _ => return update(gvk, object, old),
    };
    metadata::update(&at.at("metadata"), &before.at("metadata"));
    check(&at, &before);
    errors.take()
}

/// When a whole object is looked at.
enum Moment<'m> {
    Create,
    Update(&'m At<'m>),
}

impl<'m> Moment<'m> {
    fn old(&self) -> Option<&'m At<'m>> {
        match self {
            Moment::Create => None,
            Moment::Update(old) => Some(old),
        }
    }
}

/// Rules for the object by itself.
fn whole(group: &str, kind: &str, at: &At<'_>, moment: Moment<'_>) {
    let create = matches!(moment, Moment::Create);
    match (group, kind) {
        ("", "Pod") if create => pod::create(at),
        ("", "PodTemplate") => pod::template(&at.at("template")),
        ("", "Service") => service::service(at),
        ("", "Endpoints") => service::endpoints(at),
        ("", "ConfigMap") => core::config_map(at),
        ("", "Secret") => core::secret(at),
        ("", "Namespace") if create => core::namespace(at),
        ("", "Node") if create => core::node(at),
        ("", "LimitRange") => core::limit_range(at),
        ("", "ResourceQuota") => core::resource_quota(at),
        ("", "Event") | ("events.k8s.io", "Event") if create => core::event(at),
        ("", "Binding") => core::binding(at),
        ("", "ReplicationController") => workload::replication_controller(at),
        ("", "PersistentVolume") => storage::volume(at),
        ("", "PersistentVolumeClaim") => storage::claim(at),
        ("apps", "Deployment") => workload::deployment(at),
        ("apps", "ReplicaSet") => workload::replica_set(at),
        ("apps", "DaemonSet") => workload::daemon_set(at),
        ("apps", "StatefulSet") => workload::stateful_set(at),
        ("batch", "Job") if create => batch::job(at),
        ("batch", "CronJob") => batch::cron_job(at, moment.old()),
        ("autoscaling", "HorizontalPodAutoscaler") => other::autoscaler(at, moment.old()),
        ("autoscaling", "Scale") => other::scale(at),
        ("authentication.k8s.io", "TokenRequest") => other::token_request(at),
        ("policy", "PodDisruptionBudget") => other::disruption_budget(at),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(at),
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy(at),
        ("networking.k8s.io", "Ingress") => network::ingress(at, create),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(at),
        ("networking.k8s.io", "IPAddress") => other::ip_address(at),
        ("networking.k8s.io", "ServiceCIDR") => other::service_cidr(at),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(at, true),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(at, false),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(at, true),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(at, false),
        ("scheduling.k8s.io", "PriorityClass") => other::priority_class(at),
        ("node.k8s.io", "RuntimeClass") => other::runtime_class(at),
        ("coordination.k8s.io", "Lease") => other::lease(at),
        ("certificates.k8s.io", "CertificateSigningRequest") => other::signing_request(at),
        ("storage.k8s.io", "StorageClass") if create => storage::storage_class(at),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(at),
        ("storage.k8s.io", "CSINode") => storage::csi_node(at),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(at),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class(at),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => registration::custom_resource_definition(at),
        ("apiregistration.k8s.io", "APIService") => registration::api_service(at),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => registration::webhooks(at, false),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => registration::webhooks(at, true),
        _ => {}
    }
}

/// Kinds whose update is checked by one function that looks at both. True when there was one.
fn changes(group: &str, kind: &str, at: &At<'_>, old: &At<'_>) -> bool {
    match (group, kind) {
        ("", "Pod") => pod::update(at, old),
        ("", "Service") => service::service_update(at, old),
        ("", "Node") => core::node_update(at, old),
        ("", "PersistentVolume") => storage::volume_update(at, old),
        ("", "PersistentVolumeClaim") => storage::claim_update(at, old),
        ("batch", "Job") => batch::job_update(at, old),
        _ => return false,
    }
    true
}

/// Fields that an update may not change, beside the rules above.
fn frozen(group: &str, kind: &str, at: &At<'_>, old: &At<'_>) {
    match (group, kind) {
        ("", "ConfigMap") => core::immutable(at, old, &["data", "binaryData"]),
        ("", "Secret") => {
            at.at("type").immutable(&old.at("type"));
            core::immutable(at, old, &["data"]);
        }
        ("", "ResourceQuota") => at.at("spec").at("scopes").immutable(&old.at("spec").at("scopes")),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => {
            at.at("spec").at("selector").immutable(&old.at("spec").at("selector"));
        }
        ("apps", "StatefulSet") => workload::stateful_set_update(at, old),
        ("apps", "ControllerRevision") => at.at("data").immutable(&old.at("data")),
        ("discovery.k8s.io", "EndpointSlice") => at.at("addressType").immutable(&old.at("addressType")),
        ("networking.k8s.io", "IngressClass") => network::ingress_class_update(at, old),
        ("networking.k8s.io", "IPAddress") => {
            at.at("spec").at("parentRef").immutable(&old.at("spec").at("parentRef"));
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding_update(at, old),
        ("scheduling.k8s.io", "PriorityClass") => other::priority_class_update(at, old),
        ("node.k8s.io", "RuntimeClass") => other::runtime_class_update(at, old),
        ("certificates.k8s.io", "CertificateSigningRequest") => other::signing_request_update(at, old),
        ("storage.k8s.io", "StorageClass") => storage::storage_class_update(at, old),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver_update(at, old),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment_update(at, old),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::attributes_class_update(at, old),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => registration::custom_resource_definition_update(at, old),
        ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate") => at.at("spec").immutable(&old.at("spec")),
        _ => {}
    }
}

/// Bodies of requests that are not stored have no metadata worth checking.
fn has_metadata(group: &str, kind: &str) -> bool {
    !matches!((group, kind), ("authentication.k8s.io" | "authorization.k8s.io", _) | ("", "Binding") | ("policy", "Eviction"))
}

fn namespaced(group: &str, kind: &str) -> bool {
    match (group, kind) {
        ("autoscaling", "Scale") => true,
        _ => crate::resources::find_kind(group, kind).is_some_and(|resource| resource.namespaced),
    }
}

/// The rule that names of a kind follow. RBAC names may hold nearly anything that fits into a path.
fn name_rule(group: &str, kind: &str) -> NameRule {
    match (group, kind) {
        ("", "Namespace" | "Service") => names::is_dns1123_label,
        ("rbac.authorization.k8s.io", _)
        | ("policy", "PodDisruptionBudget")
        | ("apiregistration.k8s.io", _)
        | ("", "Event")
        | ("events.k8s.io", _) => names::is_path_segment_name,
        ("batch", "CronJob") => batch::cron_job_name,
        ("networking.k8s.io", "IPAddress") => other::ip_address_name,
        _ => names::is_dns1123_subdomain,
    }
}

#[cfg(test)]
mod tests;
