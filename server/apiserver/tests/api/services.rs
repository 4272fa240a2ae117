//! Addresses and node ports of Services: taken and freed in the Service's own transaction, and repaired.

use crate::support::Cluster;
use http::Method;
use serde_json::{Value, json};
use trireme_apiserver::admission::plugins::service_allocation::repair::{self, Repaired};
use trireme_apiserver::storage::keys;
use trireme_proto::etcd;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn node_port(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": port}]}})
}

/// One write takes a new node port and completes the deletion: nothing may stay taken.
#[tokio::test]
async fn security_15_what_a_deleted_service_held_is_free() {
    let cluster = Cluster::start().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "leak", "finalizers": ["x.io/f"]},
        "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    let (code, created) = cluster.admin(Method::POST, SERVICES, service).await;
    assert_eq!(code, 201, "{created}");
    let address = created["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let item = format!("{SERVICES}/leak");
    assert_eq!(cluster.admin(Method::DELETE, &item, Value::Null).await.0, 200);
    let last = json!({"metadata": {"finalizers": null}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30999}]}});
    let (code, answer) = cluster.admin(Method::PATCH, &item, last).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(cluster.admin(Method::GET, &item, Value::Null).await.0, 404);
    let mut next = node_port("next", 30999);
    next["spec"]["clusterIP"] = json!(address);
    let (code, answer) = cluster.admin(Method::POST, SERVICES, next).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(repair::once(cluster.api.storage(), None).await.unwrap(), Repaired::default());
    cluster.stop().await;
}

#[tokio::test]
async fn keys_without_service_are_freed_and_services_without_key_get_theirs() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.admin(Method::POST, SERVICES, node_port("a", 30001)).await.0, 201);
    let lost = keys::node_port("TCP", 30001);
    let stray = keys::node_port("UDP", 30002);
    let txn = etcd::TxnRequest { success: vec![keys::delete(&lost), keys::put(&stray, "default/nobody", 0)], ..Default::default() };
    assert!(cluster.store.txn(txn, None).await.unwrap().succeeded);
    let (code, answer) = cluster.admin(Method::POST, SERVICES, node_port("b", 30002)).await;
    assert_eq!(code, 422, "{answer}");
    let repaired = repair::once(cluster.api.storage(), None).await.unwrap();
    assert_eq!(repaired, Repaired { freed: 1, taken: 1, conflicts: 0 });
    assert_eq!(cluster.admin(Method::POST, SERVICES, node_port("b", 30002)).await.0, 201);
    let (code, answer) = cluster.admin(Method::POST, SERVICES, node_port("c", 30001)).await;
    assert_eq!(code, 422, "{answer}");
    assert_eq!(repair::once(cluster.api.storage(), None).await.unwrap(), Repaired::default());
    cluster.stop().await;
}

#[tokio::test]
async fn security_03_a_request_of_two_blocks_is_refused_at_create() {
    let cluster = Cluster::start().await;
    let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let both = format!("{}{}", block("NOTHING"), block("CERTIFICATE REQUEST"));
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, both);
    let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "x"},
        "spec": {"signerName": "example.com/any", "usages": ["client auth"], "request": encoded}});
    let (code, answer) = cluster.admin(Method::POST, "/apis/certificates.k8s.io/v1/certificatesigningrequests", request).await;
    assert_eq!(code, 422, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("exactly one PEM block"), "{answer}");
    cluster.stop().await;
}

#[tokio::test]
async fn d01_a_pod_of_an_unknown_runtime_class_is_refused() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"runtimeClassName": "gvisor", "containers": [{"name": "c", "image": "i"}]}})
    };
    let (code, answer) = cluster.admin(Method::POST, pods, pod("a")).await;
    assert_eq!(code, 403, "{answer}");
    assert_eq!(answer["message"], "pods \"a\" is forbidden: pod rejected: RuntimeClass \"gvisor\" not found");
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc",
        "overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {"nodeSelector": {"sandbox": "yes"}}});
    let (code, answer) = cluster.admin(Method::POST, "/apis/node.k8s.io/v1/runtimeclasses", class).await;
    assert_eq!(code, 201, "{answer}");
    let (code, answer) = cluster.admin(Method::POST, pods, pod("a")).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!((&answer["spec"]["overhead"], &answer["spec"]["nodeSelector"]), (&json!({"cpu": "250m"}), &json!({"sandbox": "yes"})));
    let mut other = pod("b");
    other["spec"]["overhead"] = json!({"cpu": "1"});
    assert_eq!(cluster.admin(Method::POST, pods, other).await.0, 403);
    cluster.stop().await;
}
