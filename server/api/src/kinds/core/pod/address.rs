//! PodAddresses: of each pod what other nodes need in order to enforce NetworkPolicies, and nothing else.
//!
//! A node may read only the pods that are bound to it, because a pod's spec names Secrets and holds their values in its environment. A policy
//! on one node selects pods of all nodes, though, by their labels. This view of pods can be read, listed and watched under
//! `/apis/network.trireme.io/v1`; it is not in discovery. The type: `agent/policy/src/objects.rs`.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::gvk::{GroupVersionKind, Name};
use crate::meta;
use crate::resource::{Definition, Kind, Schema, SelectableField};
use crate::resources::{Resource, Storage};

const GROUP: Name = Name::Borrowed("network.trireme.io");
const VERSIONS: &[Name] = &[Name::Borrowed("v1")];
const KIND: Name = Name::Borrowed("PodAddress");
const VERBS: &[Name] = &[Name::Borrowed("get"), Name::Borrowed("list"), Name::Borrowed("watch")];

/// What is kept of a pod's metadata.
const METADATA: &[&str] = &["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels"];

/// The view's kind. Objects of it are read only.
struct PodAddress;

/// The view's definition.
pub(crate) fn definition() -> Definition {
    let resource = Resource {
        group: GROUP,
        versions: Cow::Borrowed(VERSIONS),
        storage: Storage { group: Name::Borrowed(""), version: Name::Borrowed("v1"), hash_version: Name::Borrowed("") },
        plural: Name::Borrowed("podaddresses"),
        singular: Name::Borrowed("podaddress"),
        kind: KIND,
        list_kind: Name::Borrowed("PodAddressList"),
        short_names: Cow::Borrowed(&[]),
        categories: Cow::Borrowed(&[]),
        namespaced: true,
        verbs: Cow::Borrowed(VERBS),
        subresources: Cow::Borrowed(&[]),
    };
    Definition::new(Arc::new(resource), Schema::Open, Arc::new(PodAddress))
}

/// Whether `kind` is this view's.
pub(crate) fn is_wanted(kind: &GroupVersionKind) -> bool {
    kind.group == GROUP && kind.kind == KIND
}

/// A pod as this view shows it.
pub(crate) fn of(pod: &Value) -> Value {
    let metadata = meta::get(pod, &["metadata"]).and_then(Value::as_object);
    let metadata: Map<String, Value> =
        metadata.into_iter().flatten().filter(|(key, _)| METADATA.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    let addresses: Vec<&str> =
        meta::list_at(pod, &["status", "podIPs"]).iter().map(|ip| meta::str_at(ip, &["ip"])).filter(|ip| !ip.is_empty()).collect();
    json!({
        "metadata": metadata,
        "nodeName": meta::str_at(pod, &["spec", "nodeName"]),
        "hostNetwork": meta::get(pod, &["spec", "hostNetwork"]).and_then(Value::as_bool).unwrap_or(false),
        "ended": matches!(meta::str_at(pod, &["status", "phase"]), "Succeeded" | "Failed"),
        "addresses": addresses,
        "ports": named_ports(pod),
    })
}

/// The ports with names of all containers that run as long as the pod does.
fn named_ports(pod: &Value) -> Vec<Value> {
    let sidecars = meta::list_at(pod, &["spec", "initContainers"]).iter().filter(|c| meta::str_at(c, &["restartPolicy"]) == "Always");
    let containers = meta::list_at(pod, &["spec", "containers"]).iter().chain(sidecars);
    let ports = containers.flat_map(|container| meta::list_at(container, &["ports"]));
    let named = ports.filter(|port| !meta::str_at(port, &["name"]).is_empty());
    let shown = |port: &Value| json!({"name": port["name"], "protocol": port["protocol"], "port": port["containerPort"]});
    named.map(shown).collect()
}

impl Kind for PodAddress {
    fn selectable_fields(&self) -> Vec<SelectableField> {
        vec![SelectableField::new("spec.nodeName")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_learns_addresses_labels_and_named_ports_and_nothing_else() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}, "annotations": {"secret": "s"}},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "s",
                "initContainers": [
                    {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                    {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9, "protocol": "TCP"}]},
                ],
                "containers": [{"name": "c", "env": [{"name": "PASSWORD", "value": "s"}], "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 80, "protocol": "TCP"},
                ]}],
            },
            "status": {"phase": "Running", "podIPs": [{"ip": "10.42.0.9"}]},
        });
        let expected = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
            "nodeName": "n1", "hostNetwork": false, "ended": false, "addresses": ["10.42.0.9"],
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "metrics", "protocol": "TCP", "port": 9}],
        });
        assert_eq!(of(&pod), expected);
        assert_eq!(
            of(&json!({})),
            json!({"metadata": {}, "nodeName": "", "hostNetwork": false, "ended": false, "addresses": [], "ports": []})
        );
    }
}
