//! The strategies of built-in resources as facts.

/// One resource. See [`super::Strategy`] for what the flags mean.
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) plural: &'static str,
    pub(super) has_status: bool,
    /// A creator may set the status (nodes register with theirs).
    pub(super) status_on_create: bool,
    pub(super) generation: bool,
    pub(super) create_on_update: bool,
    pub(super) unconditional_update: bool,
}

impl Row {
    /// The convention for what is not listed, as for custom resources.
    pub(super) const fn plain() -> Row {
        row("", "", "sg")
    }
}

/// Flags: `s` status subresource, `n` status may come with the creation, `g` generation, `c` PUT creates, `u`
/// unconditional update.
const fn row(group: &'static str, plural: &'static str, flags: &'static str) -> Row {
    Row {
        group,
        plural,
        has_status: has(flags, b's'),
        status_on_create: has(flags, b'n'),
        generation: has(flags, b'g'),
        create_on_update: has(flags, b'c'),
        unconditional_update: has(flags, b'u'),
    }
}

const fn has(flags: &str, flag: u8) -> bool {
    let bytes = flags.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == flag {
            return true;
        }
        index += 1;
    }
    false
}

pub(super) const ROWS: &[Row] = &[
    row("", "configmaps", "u"),
    row("", "endpoints", "cu"),
    row("", "events", "cu"),
    row("", "limitranges", "cu"),
    row("", "namespaces", "su"),
    row("", "nodes", "snu"),
    row("", "persistentvolumeclaims", "su"),
    row("", "persistentvolumes", "su"),
    row("", "pods", "sgu"),
    row("", "podtemplates", "gcu"),
    row("", "replicationcontrollers", "sgu"),
    row("", "resourcequotas", "su"),
    row("", "secrets", "u"),
    row("", "serviceaccounts", "u"),
    row("", "services", "scu"),
    row("admissionregistration.k8s.io", "mutatingadmissionpolicies", "g"),
    row("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", "g"),
    row("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "g"),
    row("admissionregistration.k8s.io", "validatingadmissionpolicies", "sg"),
    row("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "g"),
    row("admissionregistration.k8s.io", "validatingwebhookconfigurations", "g"),
    row("apiextensions.k8s.io", "customresourcedefinitions", "sg"),
    row("apiregistration.k8s.io", "apiservices", "s"),
    row("apps", "controllerrevisions", "u"),
    row("apps", "daemonsets", "sgu"),
    row("apps", "deployments", "sgu"),
    row("apps", "replicasets", "sgu"),
    row("apps", "statefulsets", "sgu"),
    row("autoscaling", "horizontalpodautoscalers", "su"),
    row("batch", "cronjobs", "sgu"),
    row("batch", "jobs", "sgu"),
    row("certificates.k8s.io", "certificatesigningrequests", "su"),
    row("coordination.k8s.io", "leases", "c"),
    row("discovery.k8s.io", "endpointslices", "gu"),
    row("events.k8s.io", "events", "cu"),
    row("flowcontrol.apiserver.k8s.io", "flowschemas", "sgu"),
    row("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "sgu"),
    row("networking.k8s.io", "ingressclasses", "gu"),
    row("networking.k8s.io", "ingresses", "sgu"),
    row("networking.k8s.io", "ipaddresses", "u"),
    row("networking.k8s.io", "networkpolicies", "gu"),
    row("networking.k8s.io", "servicecidrs", "su"),
    row("node.k8s.io", "runtimeclasses", ""),
    row("policy", "poddisruptionbudgets", "sg"),
    row("rbac.authorization.k8s.io", "clusterrolebindings", "cu"),
    row("rbac.authorization.k8s.io", "clusterroles", "cu"),
    row("rbac.authorization.k8s.io", "rolebindings", "cu"),
    row("rbac.authorization.k8s.io", "roles", "cu"),
    row("resource.k8s.io", "deviceclasses", "gu"),
    row("resource.k8s.io", "resourceclaims", "su"),
    row("resource.k8s.io", "resourceclaimtemplates", "u"),
    row("resource.k8s.io", "resourceslices", "gu"),
    row("scheduling.k8s.io", "priorityclasses", "gu"),
    row("storage.k8s.io", "csidrivers", ""),
    row("storage.k8s.io", "csinodes", ""),
    row("storage.k8s.io", "csistoragecapacities", ""),
    row("storage.k8s.io", "storageclasses", "u"),
    row("storage.k8s.io", "volumeattachments", "s"),
    row("storage.k8s.io", "volumeattributesclasses", ""),
];
