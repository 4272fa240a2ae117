//! Kinds that are stored and served, but that nothing acts upon yet. Creating one answers with a warning, so that nobody
//! waits for something that does not come. A kind leaves this list when its controller arrives.

/// Group, plural, and who would act on it.
const PENDING: [(&str, &str, &str); 21] = [
    ("", "replicationcontrollers", "replication controller"),
    ("", "resourcequotas", "quota admission"),
    ("", "limitranges", "LimitRanger admission"),
    ("", "persistentvolumeclaims", "persistent volume controller"),
    ("", "persistentvolumes", "persistent volume controller"),
    ("apps", "daemonsets", "daemon set controller"),
    ("apps", "statefulsets", "stateful set controller"),
    ("batch", "jobs", "job controller"),
    ("batch", "cronjobs", "cron job controller"),
    ("autoscaling", "horizontalpodautoscalers", "pod autoscaler"),
    ("policy", "poddisruptionbudgets", "disruption controller"),
    ("networking.k8s.io", "networkpolicies", "network policy enforcement"),
    ("networking.k8s.io", "servicecidrs", "service CIDR controller"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "custom resource server"),
    ("apiregistration.k8s.io", "apiservices", "API aggregation"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "webhook admission"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "webhook admission"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "policy admission"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", "policy admission"),
    ("resource.k8s.io", "resourceclaims", "dynamic resource allocation"),
    ("storage.k8s.io", "volumeattachments", "attach/detach controller"),
];

/// The warning for a new object of a kind that nothing acts upon.
pub fn warning(group: &str, plural: &str) -> Option<String> {
    PENDING.iter().find(|(g, p, _)| (*g, *p) == (group, plural)).map(|(_, plural, actor)| {
        format!("{plural} are stored, but this release of trireme has no {actor} yet: nothing will act on this object")
    })
}
