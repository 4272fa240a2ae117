//! `metrics.k8s.io` as clients find it. What kubelets say is shown end to end (`tests/e2e`).

use crate::support::Cluster;
use http::Method;
use serde_json::{Value, json};

const BASE: &str = "/apis/metrics.k8s.io/v1beta1";

async fn get(cluster: &Cluster, target: &str) -> (u16, Value) {
    cluster.admin(Method::GET, target, Value::Null).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_is_found_and_its_paths_are_checked() {
    let cluster = Cluster::start().await;
    let (_, group) = get(&cluster, "/apis/metrics.k8s.io").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1", "{group}");
    let (code, list) = get(&cluster, BASE).await;
    assert_eq!((code, &list["resources"][1]["kind"]), (200, &json!("PodMetrics")), "{list}");
    let (code, list) = get(&cluster, &format!("{BASE}/nodes")).await;
    assert_eq!((code, &list["kind"], &list["items"]), (200, &json!("NodeMetricsList"), &json!([])));
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "silent"}});
    assert_eq!(cluster.admin(Method::POST, "/api/v1/nodes", node).await.0, 201);
    let (code, missing) = get(&cluster, &format!("{BASE}/nodes/silent")).await;
    assert_eq!((code, missing["message"].as_str()), (404, Some("nodes.metrics.k8s.io \"silent\" not found")));
    for (target, code) in [
        ("pods", 200),
        ("namespaces/default/pods?labelSelector=a%3Db&fieldSelector=metadata.name%3Dx", 200),
        ("namespaces/default/pods/p", 404),
        ("pods?labelSelector=%21%21", 400),
        ("pods?fieldSelector=spec.nodeName%3Dx", 400),
        ("namespaces/default/nodes", 404),
        ("services", 404),
        ("nodes/a/proxy", 404),
    ] {
        assert_eq!(get(&cluster, &format!("{BASE}/{target}")).await.0, code, "{target}");
    }
    assert_eq!(get(&cluster, &format!("{BASE}/pods?watch=1")).await.0, 405);
    assert_eq!(cluster.admin(Method::DELETE, &format!("{BASE}/nodes/silent"), Value::Null).await.0, 405);
    assert_eq!(get(&cluster, "/apis/metrics.k8s.io/v2/nodes").await.0, 404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_of_metrics_takes_its_place() {
    let cluster = Cluster::start().await;
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "kube-system", "name": "metrics-server"}}});
    let (code, made) = cluster.admin(Method::POST, "/apis/apiregistration.k8s.io/v1/apiservices", service).await;
    assert_eq!(code, 201, "{made}");
    cluster.seen(&made).await;
    assert_eq!(get(&cluster, &format!("{BASE}/nodes")).await.0, 503, "it is asked, and is not there");
    assert_eq!(get(&cluster, "/apis/metrics.k8s.io/v1/nodes").await.0, 404, "two servers are not mixed");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_measure_does_not_show_the_group() {
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.resource_metrics = false).await;
    for target in ["/apis/metrics.k8s.io", BASE, &format!("{BASE}/nodes")] {
        assert_eq!(get(&cluster, target).await.0, 404, "{target}");
    }
    cluster.stop().await;
}
