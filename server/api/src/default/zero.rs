//! The fields that upstream's encoder always writes, even when nobody set them.
//!
//! Go structs without `omitempty` (and embedded structs in any case) appear as `{}`, `0`, `""`, `false` or `null`.
//! Clients generated from the schema rely on the required ones (`status.replicas`, `restartCount`, ...).

use serde_json::Value;

use super::walk::{Lit::*, Row, fill};

/// Rows for one (group, version, kind).
pub(super) fn shape(group: &str, version: &str, kind: &str, object: &mut Value) {
    fill(object, &[Row("", "metadata", Obj)]);
    fill(object, rows(group, version, kind));
}

/// Rows of a pod spec at the root.
pub(super) const POD_SPEC: &[Row] = &[
    Row("", "containers", Null),
    Row("containers[]", "resources", Obj),
    Row("initContainers[]", "resources", Obj),
    Row("ephemeralContainers[]", "resources", Obj),
    Row("containers[].env[].valueFrom.resourceFieldRef", "divisor", S("0")),
    Row("initContainers[].env[].valueFrom.resourceFieldRef", "divisor", S("0")),
    Row("volumes[].downwardAPI.items[].resourceFieldRef", "divisor", S("0")),
    Row("volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef", "divisor", S("0")),
    Row("volumes[].projected", "sources", Null),
    Row("volumes[].ephemeral.volumeClaimTemplate", "metadata", Obj),
    Row("volumes[].ephemeral.volumeClaimTemplate.spec", "resources", Obj),
];

const CONTAINER_STATUS: &[(&str, super::walk::Lit)] = &[
    ("image", Empty),
    ("imageID", Empty),
    ("lastState", Obj),
    ("name", Empty),
    ("ready", B(false)),
    ("restartCount", I(0)),
    ("state", Obj),
];

const CONDITION: &[Row] = &[Row("status.conditions[]", "lastProbeTime", Null), Row("status.conditions[]", "lastTransitionTime", Null)];

/// A pod's status lists.
pub(super) fn pod_status(object: &mut Value) {
    fill(object, CONDITION);
    for list in ["status.containerStatuses[]", "status.initContainerStatuses[]", "status.ephemeralContainerStatuses[]"] {
        for (key, lit) in CONTAINER_STATUS {
            super::walk::each(object, list, &mut |map| super::walk::set(map, key, *lit));
        }
        for state in ["state", "lastState"] {
            let at = format!("{list}.{state}");
            super::walk::each(object, &format!("{at}.running"), &mut |map| super::walk::set(map, "startedAt", Null));
            super::walk::each(object, &format!("{at}.terminated"), &mut |map| {
                super::walk::set(map, "exitCode", I(0));
                super::walk::set(map, "startedAt", Null);
                super::walk::set(map, "finishedAt", Null);
            });
        }
    }
}

const STATUS: &[Row] = &[Row("", "spec", Obj), Row("", "status", Obj)];
const SPEC: &[Row] = &[Row("", "spec", Obj)];

const NODE: &[Row] = &[
    Row("", "spec", Obj),
    Row("", "status", Obj),
    Row("status", "daemonEndpoints", Obj),
    Row("status.daemonEndpoints", "kubeletEndpoint", Obj),
    Row("status.daemonEndpoints.kubeletEndpoint", "Port", I(0)),
    Row("status", "nodeInfo", Obj),
    Row("status.nodeInfo", "architecture", Empty),
    Row("status.nodeInfo", "bootID", Empty),
    Row("status.nodeInfo", "containerRuntimeVersion", Empty),
    Row("status.nodeInfo", "kernelVersion", Empty),
    Row("status.nodeInfo", "kubeProxyVersion", Empty),
    Row("status.nodeInfo", "kubeletVersion", Empty),
    Row("status.nodeInfo", "machineID", Empty),
    Row("status.nodeInfo", "operatingSystem", Empty),
    Row("status.nodeInfo", "osImage", Empty),
    Row("status.nodeInfo", "systemUUID", Empty),
    Row("status.conditions[]", "lastHeartbeatTime", Null),
    Row("status.conditions[]", "lastTransitionTime", Null),
    Row("status.images[]", "names", Null),
];

const EVENT: &[Row] = &[
    Row("", "involvedObject", Obj),
    Row("", "source", Obj),
    Row("", "firstTimestamp", Null),
    Row("", "lastTimestamp", Null),
    Row("", "eventTime", Null),
    Row("", "reportingComponent", Empty),
    Row("", "reportingInstance", Empty),
];

const EVENTS_V1: &[Row] = &[
    Row("", "eventTime", Null),
    Row("", "regarding", Obj),
    Row("", "deprecatedSource", Obj),
    Row("", "deprecatedFirstTimestamp", Null),
    Row("", "deprecatedLastTimestamp", Null),
];

const REPLICAS: &[Row] = &[
    Row("", "spec", Obj),
    Row("spec", "selector", Null),
    Row("spec", "template", Obj),
    Row("", "status", Obj),
    Row("status", "replicas", I(0)),
];

const STATEFUL_SET: &[Row] = &[
    Row("", "spec", Obj),
    Row("spec", "selector", Null),
    Row("spec", "template", Obj),
    Row("spec", "serviceName", Empty),
    Row("spec", "updateStrategy", Obj),
    Row("", "status", Obj),
    Row("status", "replicas", I(0)),
    Row("status", "availableReplicas", I(0)),
    Row("spec.volumeClaimTemplates[]", "metadata", Obj),
    Row("spec.volumeClaimTemplates[]", "spec", Obj),
    Row("spec.volumeClaimTemplates[].spec", "resources", Obj),
    Row("spec.volumeClaimTemplates[]", "status", Obj),
];

const DAEMON_SET: &[Row] = &[
    Row("", "spec", Obj),
    Row("spec", "selector", Null),
    Row("spec", "template", Obj),
    Row("spec", "updateStrategy", Obj),
    Row("", "status", Obj),
    Row("status", "currentNumberScheduled", I(0)),
    Row("status", "desiredNumberScheduled", I(0)),
    Row("status", "numberMisscheduled", I(0)),
    Row("status", "numberReady", I(0)),
];

const DEPLOYMENT: &[Row] = &[
    Row("", "spec", Obj),
    Row("spec", "selector", Null),
    Row("spec", "template", Obj),
    Row("spec", "strategy", Obj),
    Row("", "status", Obj),
];

const BUDGET: &[Row] = &[
    Row("", "spec", Obj),
    Row("", "status", Obj),
    Row("status", "currentHealthy", I(0)),
    Row("status", "desiredHealthy", I(0)),
    Row("status", "disruptionsAllowed", I(0)),
    Row("status", "expectedPods", I(0)),
];

const CRD: &[Row] = &[
    Row("", "status", Obj),
    Row("status", "conditions", Null),
    Row("status", "acceptedNames", Obj),
    Row("status.acceptedNames", "plural", Empty),
    Row("status.acceptedNames", "kind", Empty),
    Row("status", "storedVersions", Null),
];

fn rows(group: &str, version: &str, kind: &str) -> &'static [Row] {
    match (group, kind) {
        ("", "Pod" | "Namespace" | "PersistentVolume" | "ResourceQuota") => STATUS,
        ("", "PersistentVolumeClaim") => &[Row("", "spec", Obj), Row("spec", "resources", Obj), Row("", "status", Obj)],
        ("", "Service") => &[Row("", "spec", Obj), Row("", "status", Obj), Row("status", "loadBalancer", Obj)],
        ("", "Node") => NODE,
        ("", "Event") => EVENT,
        ("events.k8s.io", "Event") => EVENTS_V1,
        ("", "LimitRange") => &[Row("", "spec", Obj), Row("spec", "limits", Null)],
        ("", "PodTemplate") => &[Row("", "template", Obj)],
        ("", "ReplicationController") => &[Row("", "spec", Obj), Row("", "status", Obj), Row("status", "replicas", I(0))],
        ("apps", "ReplicaSet") => REPLICAS,
        ("apps", "Deployment") => DEPLOYMENT,
        ("apps", "StatefulSet") => STATEFUL_SET,
        ("apps", "DaemonSet") => DAEMON_SET,
        ("batch", "Job") => &[Row("", "spec", Obj), Row("spec", "template", Obj), Row("", "status", Obj)],
        ("batch", "CronJob") => &[
            Row("", "spec", Obj),
            Row("spec", "jobTemplate", Obj),
            Row("spec.jobTemplate", "metadata", Obj),
            Row("spec.jobTemplate", "spec", Obj),
            Row("", "status", Obj),
        ],
        ("autoscaling", "HorizontalPodAutoscaler") if version == "v1" => {
            &[Row("", "spec", Obj), Row("", "status", Obj), Row("status", "currentReplicas", I(0)), Row("status", "desiredReplicas", I(0))]
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            &[Row("", "spec", Obj), Row("", "status", Obj), Row("status", "desiredReplicas", I(0)), Row("status", "currentMetrics", Null)]
        }
        ("autoscaling", "Scale") => &[Row("", "spec", Obj), Row("", "status", Obj), Row("status", "replicas", I(0))],
        ("policy", "PodDisruptionBudget") => BUDGET,
        ("networking.k8s.io", "Ingress") => &[Row("", "spec", Obj), Row("", "status", Obj), Row("status", "loadBalancer", Obj)],
        ("networking.k8s.io", "NetworkPolicy") => &[Row("", "spec", Obj), Row("spec", "podSelector", Obj)],
        ("networking.k8s.io", "IngressClass" | "IPAddress") | ("coordination.k8s.io", "Lease") => SPEC,
        ("networking.k8s.io", "ServiceCIDR")
        | ("certificates.k8s.io", "CertificateSigningRequest")
        | ("flowcontrol.apiserver.k8s.io", _)
        | ("apiregistration.k8s.io", "APIService")
        | ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => STATUS,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => SPEC,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => SPEC,
        ("storage.k8s.io", "VolumeAttachment") => {
            &[Row("", "spec", Obj), Row("spec", "source", Obj), Row("", "status", Obj), Row("status", "attached", B(false))]
        }
        ("storage.k8s.io", "CSINode") => &[Row("", "spec", Obj), Row("spec", "drivers", Null)],
        ("storage.k8s.io", "CSIDriver") => SPEC,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => CRD,
        ("discovery.k8s.io", "EndpointSlice") => {
            &[Row("", "endpoints", Null), Row("endpoints[]", "conditions", Obj), Row("", "ports", Null)]
        }
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => &[Row("", "rules", Null)],
        ("resource.k8s.io", "ResourceClaim") => &[Row("", "spec", Obj), Row("spec", "devices", Obj), Row("", "status", Obj)],
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            &[Row("", "spec", Obj), Row("spec", "metadata", Obj), Row("spec", "spec", Obj), Row("spec.spec", "devices", Obj)]
        }
        ("resource.k8s.io", "DeviceClass") => SPEC,
        _ => &[],
    }
}
