//! How much of upstream's behaviour each built-in kind has here, said openly.
//!
//! One row for each stored kind, held complete by a test. The columns of `kubectl get` are complete for all of them;
//! what differs is defaulting and validation. A kind that is not `Full` is still checked against its schema and its
//! metadata. Documentation and the differential tests read this table.

/// How far an aspect of a kind goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everything upstream does, as far as we know.
    Full,
    /// The parts that matter to a cluster's work; `missing` names the rest.
    Partial,
    /// Nothing beyond schema and metadata.
    SchemaOnly,
}

/// What one kind has.
#[derive(Clone, Copy, Debug)]
pub struct Coverage {
    /// API group, empty for core.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Defaulting.
    pub defaults: Level,
    /// Validation of new and changed objects.
    pub validation: Level,
    /// What is known to be missing, for readers; empty where nothing is.
    pub missing: &'static str,
}

const fn full(group: &'static str, kind: &'static str) -> Coverage {
    Coverage { group, kind, defaults: Level::Full, validation: Level::Full, missing: "" }
}

const fn partial(group: &'static str, kind: &'static str, missing: &'static str) -> Coverage {
    Coverage { group, kind, defaults: Level::Full, validation: Level::Partial, missing }
}

const fn schema_only(group: &'static str, kind: &'static str, missing: &'static str) -> Coverage {
    Coverage { group, kind, defaults: Level::Full, validation: Level::SchemaOnly, missing }
}

/// What every embedded pod spec shares.
const POD: &str = "Windows options and host processes; seccomp and AppArmor annotations against fields; sizes of huge \
     pages; pod-level resources against container resources; details of legacy volume types (iscsi, rbd, quobyte, ...); \
     the difference shown when an immutable field changes has all unset fields of containers and projected volumes only";

const POLICY: &str = "CEL expressions are not compiled; match conditions and rules are not checked";

/// All stored kinds, by group and kind.
pub fn kinds() -> &'static [Coverage] {
    KINDS
}

/// The row of a kind.
pub fn of(group: &str, kind: &str) -> Option<&'static Coverage> {
    KINDS.iter().find(|row| row.group == group && row.kind == kind)
}

const KINDS: &[Coverage] = &[
    full("", "ConfigMap"),
    full("", "Endpoints"),
    partial("", "Event", "the newer API's required fields and its immutability on update"),
    partial("", "LimitRange", "ratio against max/min; equal default and request of resources that can't be overcommitted"),
    full("", "Namespace"),
    partial("", "Node", "configSource"),
    partial(
        "",
        "PersistentVolume",
        "details of legacy volume types; the difference shown when the source changes; \
         lastPhaseTransitionTime",
    ),
    partial("", "PersistentVolumeClaim", "conditions and allocated resources in the status"),
    partial("", "Pod", POD),
    partial("", "PodTemplate", POD),
    partial("", "ReplicationController", POD),
    partial("", "ResourceQuota", "which scopes fit which resources"),
    full("", "Secret"),
    full("", "Service"),
    full("", "ServiceAccount"),
    schema_only("admissionregistration.k8s.io", "MutatingAdmissionPolicy", POLICY),
    schema_only("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", POLICY),
    partial("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "match conditions; overlapping rules; CA bundles"),
    schema_only("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", POLICY),
    schema_only("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", POLICY),
    partial("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "match conditions; overlapping rules; CA bundles"),
    partial(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "structural schemas, CEL rules, conversion, printer columns, \
         subresources, selectable fields",
    ),
    full("apiregistration.k8s.io", "APIService"),
    full("apps", "ControllerRevision"),
    partial("apps", "DaemonSet", POD),
    partial("apps", "Deployment", POD),
    partial("apps", "ReplicaSet", POD),
    partial("apps", "StatefulSet", POD),
    partial("autoscaling", "HorizontalPodAutoscaler", "metrics in the status; tolerance"),
    partial("batch", "CronJob", "names of time zones are believed within a known area"),
    partial("batch", "Job", "successPolicy; consistency of the status; managedBy"),
    partial("certificates.k8s.io", "CertificateSigningRequest", "the request's PEM and signature; the certificate's PEM"),
    full("coordination.k8s.io", "Lease"),
    partial("discovery.k8s.io", "EndpointSlice", "hints for nodes"),
    schema_only("flowcontrol.apiserver.k8s.io", "FlowSchema", "subjects and rules; the mandatory objects"),
    schema_only(
        "flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration",
        "shares, queues and hand sizes; the mandatory \
         objects",
    ),
    full("networking.k8s.io", "IPAddress"),
    full("networking.k8s.io", "Ingress"),
    full("networking.k8s.io", "IngressClass"),
    full("networking.k8s.io", "NetworkPolicy"),
    full("networking.k8s.io", "ServiceCIDR"),
    full("node.k8s.io", "RuntimeClass"),
    full("policy", "PodDisruptionBudget"),
    full("rbac.authorization.k8s.io", "ClusterRole"),
    full("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    full("rbac.authorization.k8s.io", "Role"),
    full("rbac.authorization.k8s.io", "RoleBinding"),
    schema_only("resource.k8s.io", "DeviceClass", "selectors and configuration"),
    schema_only("resource.k8s.io", "ResourceClaim", "requests, constraints and allocation"),
    schema_only("resource.k8s.io", "ResourceClaimTemplate", "requests and constraints"),
    Coverage {
        group: "resource.k8s.io",
        kind: "ResourceSlice",
        defaults: Level::Partial,
        validation: Level::SchemaOnly,
        missing: "times of device taints; devices, counters and attributes",
    },
    full("scheduling.k8s.io", "PriorityClass"),
    full("storage.k8s.io", "CSIDriver"),
    full("storage.k8s.io", "CSINode"),
    schema_only("storage.k8s.io", "CSIStorageCapacity", "immutable fields"),
    full("storage.k8s.io", "StorageClass"),
    partial("storage.k8s.io", "VolumeAttachment", "inline volumes and the status"),
    full("storage.k8s.io", "VolumeAttributesClass"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_stored_kind_has_a_row_and_every_row_a_kind() {
        // A kind served in two groups (Event) is stored and described once.
        let stored: BTreeSet<(&str, &str)> = crate::resources::builtin()
            .iter()
            .filter(|resource| resource.is_stored() && resource.storage.group == resource.group)
            .map(|resource| (resource.group.as_ref(), resource.kind.as_ref()))
            .collect();
        let described: BTreeSet<(&str, &str)> = kinds().iter().map(|row| (row.group, row.kind)).collect();
        assert_eq!(described, stored);
        assert_eq!(described.len(), kinds().len(), "no row twice");
        for row in kinds() {
            let complete = row.defaults == Level::Full && row.validation == Level::Full;
            assert_eq!(row.missing.is_empty(), complete, "{}: what is missing is said", row.kind);
        }
    }
}
