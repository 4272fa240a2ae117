//! Fields that `?fieldSelector=` accepts, per resource, and their values.
//!
//! Answers to the label conversion functions and `GetAttrs` of upstream's registry. `metadata.name` works everywhere,
//! `metadata.namespace` on everything with a namespace.

use std::borrow::Cow;

use serde_json::Value;

use super::Resource;
use crate::meta;

const NAME: &[&str] = &["metadata.name"];
const NAMESPACED: &[&str] = &["metadata.name", "metadata.namespace"];
const POD: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];
const EVENT: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const EVENTS_K8S_IO: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// The fields of a resource that can be selected by.
pub fn selectable_fields(resource: &Resource) -> &'static [&'static str] {
    match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("", "pods") => POD,
        ("", "events") => EVENT,
        ("events.k8s.io", "events") => EVENTS_K8S_IO,
        ("", "nodes") => &["metadata.name", "spec.unschedulable"],
        ("", "namespaces") => &["metadata.name", "name", "status.phase"],
        ("", "secrets") => &["metadata.name", "metadata.namespace", "type"],
        ("", "services") => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["metadata.name", "metadata.namespace", "status.replicas"],
        ("batch", "jobs") => &["metadata.name", "metadata.namespace", "status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["metadata.name", "spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["metadata.name", "spec.nodeName", "spec.driver"],
        _ if resource.namespaced => NAMESPACED,
        _ => NAME,
    }
}

/// The value of a selectable field, as text; "" where it is absent.
pub fn field_value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let path = match field {
        "name" => "metadata.name",
        // The core Event says it in its (deprecated) source; `reportingComponent` is the newer field.
        "source" => match meta::str_at(object, &["source", "component"]) {
            "" => "reportingComponent",
            component => return Cow::Borrowed(component),
        },
        "status.successful" => "status.succeeded",
        "status.podIPs" => return pod_ips(object),
        path => path,
    };
    let value = path.split('.').try_fold(object, |value, key| value.get(key));
    match value {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Bool(flag)) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        _ => Cow::Borrowed(absent(field)),
    }
}

/// What a missing value reads as: booleans and counters have a zero value upstream.
fn absent(field: &str) -> &'static str {
    match field {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    }
}

fn pod_ips(object: &Value) -> Cow<'_, str> {
    let ips = meta::list_at(object, &["status", "podIPs"]).iter().filter_map(|ip| ip.get("ip")?.as_str());
    Cow::Owned(ips.collect::<Vec<_>>().join(","))
}
