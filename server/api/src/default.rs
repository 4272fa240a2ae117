//! Defaulting of built-in kinds: what upstream's `SetDefaults_*` functions write into fields that nobody set.
//!
//! Owns the defaults of every version that is served and the always-present zero fields ([`zero`]). Must not allocate
//! (cluster IPs, node ports), name, or read a clock. Idempotent: the pipeline runs it after decoding and again after
//! mutating admission. Upstream: `pkg/apis/*/v1/defaults.go`.

mod cluster;
mod network;
mod pod;
mod walk;
mod workload;
mod zero;

use serde_json::Value;

use crate::gvk::GroupVersionKind;

/// Applies the defaults of `gvk` to a decoded object. Unknown kinds are left alone.
pub fn apply(gvk: &GroupVersionKind, object: &mut Value) {
    let (group, version, kind) = (gvk.group.as_ref(), gvk.version.as_ref(), gvk.kind.as_ref());
    zero::shape(group, version, kind, object);
    if let Some(path) = template_path(group, kind) {
        pod_template(object, path);
    }
    match group {
        "" => core(kind, object),
        "apps" | "batch" | "autoscaling" => workload::apply(version, kind, object),
        "networking.k8s.io" | "discovery.k8s.io" => network::apply(kind, object),
        _ => cluster::apply(group, kind, object),
    }
}

fn core(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => {
            zero_pod_spec(object, "spec");
            zero::pod_status(object);
            pod::pod(object);
        }
        "ReplicationController" => workload::replication_controller(object),
        "Service" | "Endpoints" => network::apply(kind, object),
        _ => cluster::apply("", kind, object),
    }
}

/// Where the pod template of a kind is.
pub(crate) fn template_path(group: &str, kind: &str) -> Option<&'static str> {
    match (group, kind) {
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") | ("batch", "Job") | ("", "ReplicationController") => {
            Some("spec.template")
        }
        ("batch", "CronJob") => Some("spec.jobTemplate.spec.template"),
        ("", "PodTemplate") => Some("template"),
        _ => None,
    }
}

fn pod_template(object: &mut Value, path: &str) {
    walk::each(object, path, &mut |template| {
        walk::set(template, "metadata", walk::Lit::Obj);
        walk::set(template, "spec", walk::Lit::Obj);
    });
    let spec = format!("{path}.spec");
    zero_pod_spec(object, &spec);
    pod::pod_spec(object, &spec);
}

fn zero_pod_spec(object: &mut Value, path: &str) {
    walk::each(object, path, &mut |spec| {
        let mut value = Value::Object(std::mem::take(spec));
        walk::fill(&mut value, zero::POD_SPEC);
        if let Value::Object(filled) = value {
            *spec = filled;
        }
    });
}

#[cfg(test)]
mod tests;
