//! A write takes effect exactly once, and objects with a lifetime (Events) are removed when it ends.

use crate::support::{Cluster, Events};
use http::Method;
use serde_json::{Value, json};
use trireme_proto::etcd;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn a_graceful_delete_under_a_precondition_does_not_trip_over_its_own_mark() {
    let cluster = Cluster::start().await;
    let (code, created) = cluster.admin(Method::POST, PODS, pod("a")).await;
    assert_eq!(code, 201, "{created}");
    let body = json!({"preconditions": {"resourceVersion": created["metadata"]["resourceVersion"]}});
    let (code, marked) = cluster.admin(Method::DELETE, &format!("{PODS}/a"), body).await;
    assert_eq!(code, 200, "{marked}");
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    cluster.stop().await;
}

#[tokio::test]
async fn an_event_that_counts_on_keeps_an_end() {
    let cluster = Cluster::start().await;
    const EVENTS: &str = "/api/v1/namespaces/default/events";
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "count": 1, "reason": "Test",
                       "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"}, "type": "Normal"});
    assert_eq!(cluster.admin(Method::POST, EVENTS, event).await.0, 201);
    let lease = || {
        let request = etcd::RangeRequest { key: "/registry/core/events/default/e".into(), ..Default::default() };
        cluster.store.range(&request).unwrap().kvs[0].lease
    };
    assert_ne!(lease(), 0);
    let (code, answer) = cluster.admin(Method::PATCH, &format!("{EVENTS}/e"), json!({"count": 2})).await;
    assert_eq!((code, &answer["count"]), (200, &json!(2)));
    assert_ne!(lease(), 0, "the update took the event's end away");
    // An hour, and up to a minute more, for Events share their leases.
    let ttl_secs = cluster.store.lease_info(lease()).unwrap().unwrap().ttl_secs;
    assert!((3600..=3660).contains(&ttl_secs), "{ttl_secs} s");
    // What the store does when the lease's time is over.
    cluster.store.lease_revoke(lease()).await.unwrap();
    let (code, answer) = cluster.admin(Method::GET, &format!("{EVENTS}/e"), Value::Null).await;
    assert_eq!(code, 404, "{answer}");
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "f"}, "reason": "Test",
                       "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"}, "type": "Normal"});
    let (code, answer) = cluster.admin(Method::POST, EVENTS, event.clone()).await;
    // The lease that was remembered is gone: at worst the first attempt says so, and the next one has another.
    if code != 201 {
        assert_eq!(cluster.admin(Method::POST, EVENTS, event).await.0, 201, "{answer}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_watcher_sees_all_of_a_transaction() {
    let cluster = Cluster::start().await;
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    const COUNT: usize = 300;
    let mut revision = String::new();
    for n in 0..COUNT {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{n}")}});
        let (code, made) = cluster.admin(Method::POST, MAPS, map).await;
        assert_eq!(code, 201, "{made}");
        revision = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    }
    let watch = format!("{MAPS}?watch=1&resourceVersion={revision}");
    let mut events = Events::new(cluster.send(Method::GET, &watch, Value::Null, &[]).await);
    // As an expiring lease does it: many objects of one resource at one revision.
    let delete = etcd::DeleteRangeRequest {
        key: "/registry/core/configmaps/default/m".into(),
        range_end: "/registry/core/configmaps/default/n".into(),
        ..Default::default()
    };
    let request = Some(etcd::request_op::Request::RequestDeleteRange(delete));
    let txn = etcd::TxnRequest { success: vec![etcd::RequestOp { request }], ..Default::default() };
    cluster.store.txn(txn, None).await.unwrap();
    for _ in 0..COUNT {
        assert_eq!(events.named().await.0, "DELETED");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_port_named_by_a_balancer_without_node_ports_is_reserved() {
    let cluster = Cluster::start().await;
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
               "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                        "ports": [{"port": 80, "nodePort": 30123}]}})
    };
    let (code, answer) = cluster.admin(Method::POST, SERVICES, service("a")).await;
    assert_eq!(code, 201, "{answer}");
    let (code, answer) = cluster.admin(Method::POST, SERVICES, service("b")).await;
    assert_eq!(code, 422, "{answer}");
    assert_eq!(cluster.admin(Method::DELETE, &format!("{SERVICES}/a"), Value::Null).await.0, 200);
    let (code, answer) = cluster.admin(Method::POST, SERVICES, service("b")).await;
    assert_eq!(code, 201, "{answer}");
    cluster.stop().await;
}
