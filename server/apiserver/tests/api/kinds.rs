//! Rules of built-in kinds, through the whole pipeline.

use crate::support::Cluster;
use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn patch(cluster: &Cluster, target: &str, kind: &str, body: Value) -> (u16, Value) {
    let content_type = format!("application/{kind}-patch+json");
    crate::support::read(cluster.send(Method::PATCH, target, body, &[("content-type", content_type.as_str())]).await).await
}

async fn yaml(cluster: &Cluster, target: &str, body: &str) -> (u16, Value) {
    let request = Request::builder().method(Method::POST).uri(target).header("content-type", "application/yaml");
    let response = cluster.api.call(crate::support::admin(), request.body(Bytes::from(body.to_owned())).unwrap()).await;
    crate::support::read(response).await
}

#[tokio::test(flavor = "multi_thread")]
async fn case_14_a_doubled_key_is_told_as_upstream_tells_it() {
    let cluster = Cluster::start().await;
    let send = |validation: &'static str| {
        let request = Request::builder().method(Method::POST).uri(format!("{MAPS}?fieldValidation={validation}"));
        let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata:\n  {a: one, a: two}\n";
        cluster.api.call(crate::support::admin(), request.header("content-type", "application/yaml").body(Bytes::from(body)).unwrap())
    };
    let (code, refused) = crate::support::read(send("Strict").await).await;
    assert!(code == 400 && refused["message"].as_str().unwrap().contains("key \"a\" already set in map"), "{refused}");
    let warned = send("Warn").await;
    let warning = warned.headers()["warning"].to_str().unwrap().to_owned();
    assert!(warning.contains("already set in map") && !warning.contains("duplicate field"), "{warning}");
    let (code, made) = crate::support::read(warned).await;
    assert_eq!((code, &made["data"]["a"]), (201, &json!("two")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_14_whole_numbers_in_other_spellings() {
    let cluster = Cluster::start().await;
    let deployment = |name: &str, seconds: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 0\n  minReadySeconds: {seconds}\n  \
             selector: {{matchLabels: {{app: d}}}}\n  template:\n    metadata: {{labels: {{app: d}}}}\n    spec:\n      \
             containers: [{{name: c, image: i, ports: [{{containerPort: 8e1}}], resources: {{requests: {{memory: 1e3}}}}}}]\n"
        )
    };
    let target = "/apis/apps/v1/namespaces/default/deployments";
    for (name, seconds) in [("a", "1e1"), ("b", "10.0"), ("c", "10")] {
        let (code, made) = yaml(&cluster, target, &deployment(name, seconds)).await;
        assert_eq!((code, &made["spec"]["minReadySeconds"]), (201, &json!(10)), "{seconds}: {made}");
        let container = &made["spec"]["template"]["spec"]["containers"][0];
        assert_eq!((&container["ports"][0]["containerPort"], &container["resources"]["requests"]["memory"]), (&json!(80), &json!("1k")));
    }
    for seconds in ["1.5", ".inf", "1e30"] {
        let (code, refused) = yaml(&cluster, target, &deployment("d", seconds)).await;
        assert_eq!(code, 400, "{seconds}: {refused}");
    }
    // JSON is stricter upstream, except in a strategic merge patch, which is read without types.
    let (code, patched) = patch(&cluster, &format!("{target}/a"), "strategic-merge", json!({"spec": {"minReadySeconds": 20.0}})).await;
    assert_eq!((code, &patched["spec"]["minReadySeconds"]), (200, &json!(20)), "{patched}");
    let (code, _) = patch(&cluster, &format!("{target}/a"), "merge", json!({"spec": {"minReadySeconds": 30.0}})).await;
    assert_eq!(code, 422);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_maps_that_a_patch_leaves_are_dropped() {
    let cluster = Cluster::start().await;
    let map = |name: &str| json!({"metadata": {"name": name, "annotations": {"a": "1"}, "labels": {"l": "1"}}, "data": {"k": "v"}});
    let cases = [
        ("merge", json!({"metadata": {"annotations": {"a": null}, "labels": {"l": null}}, "data": {"k": null}})),
        ("strategic-merge", json!({"metadata": {"annotations": {"a": null}, "labels": {"l": null}}, "data": {"k": null}})),
        (
            "json",
            json!([{"op": "remove", "path": "/metadata/annotations/a"}, {"op": "remove", "path": "/metadata/labels/l"}, {"op": "remove", "path": "/data/k"}]),
        ),
    ];
    for (kind, change) in cases {
        let name = format!("{kind}-patched");
        assert_eq!(cluster.admin(Method::POST, MAPS, map(&name)).await.0, 201);
        let (code, patched) = patch(&cluster, &format!("{MAPS}/{name}"), kind, change).await;
        assert_eq!(code, 200, "{patched}");
        for (part, key) in [(&patched["metadata"], "annotations"), (&patched["metadata"], "labels"), (&patched, "data")] {
            assert_eq!(part.get(key), None, "{kind} {key}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_06_a_json_patch_that_doubles_an_object_is_refused() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.admin(Method::POST, MAPS, json!({"metadata": {"name": "a"}})).await.0, 201);
    let doubling: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{i}")})).collect();
    let (code, refused) = patch(&cluster, &format!("{MAPS}/a"), "json", doubling.into()).await;
    assert_eq!((code, &refused["reason"]), (413, &json!("RequestEntityTooLarge")), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_07_a_refused_update_of_a_long_pod_is_answered() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let variables: Vec<Value> = (0..30_000).map(|i| json!({"name": format!("E{i}")})).collect();
    let pod = json!({"metadata": {"name": "long"}, "spec": {"containers": [{"name": "c", "image": "i", "env": variables}]}});
    let (code, made) = cluster.admin(Method::POST, pods, pod).await;
    assert_eq!(code, 201, "{}", made["message"]);
    let (code, refused) = cluster.admin(Method::PATCH, &format!("{pods}/long"), json!({"spec": {"hostname": "x"}})).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("+ \"Hostname\": \"x\""), "the change is shown");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_16_a_status_update_cannot_approve() {
    let cluster = Cluster::start().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let csr = json!({"metadata": {"name": "r"}, "spec": {"request": "eA==", "usages": ["client auth"], "signerName": "example.com/s"}});
    let (code, made) = cluster.admin(Method::POST, requests, csr).await;
    if code == 422 && made["message"].as_str().unwrap().contains("request") {
        // The request itself is checked by another part: this test is about conditions.
        return cluster.stop().await;
    }
    assert_eq!(code, 201, "{made}");
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}});
    let (code, refused) = cluster.admin(Method::PATCH, &format!("{requests}/r/status"), approved.clone()).await;
    assert_eq!(code, 422, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("updates may not add a condition of type \"Approved\""), "{refused}");
    // A patch's annotation is kept on both paths (conformance: "CSR API operations").
    for (path, more) in [("status", json!({})), ("approval", approved)] {
        let mut body = json!({"metadata": {"annotations": {format!("patched-{path}"): "true"}}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (code, patched) = cluster.admin(Method::PATCH, &format!("{requests}/r/{path}"), body).await;
        assert_eq!((code, &patched["metadata"]["annotations"][format!("patched-{path}")]), (200, &json!("true")), "{patched}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d18_external_addresses_are_deprecated() {
    let cluster = Cluster::start().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["10.9.8.7"]}});
    let response =
        cluster.send(Method::POST, "/api/v1/namespaces/default/services", service, &[("content-type", "application/json")]).await;
    assert_eq!(response.status(), 201);
    let warnings: Vec<&str> = response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(warnings, ["299 - \"spec.externalIPs is deprecated and may no longer be implemented in some clusters\""]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_21_finalizers_of_core_kinds_have_a_domain_or_a_standard_name() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.admin(Method::POST, MAPS, json!({"metadata": {"name": "a"}})).await.0, 201);
    let (code, refused) = cluster.admin(Method::PATCH, &format!("{MAPS}/a"), json!({"metadata": {"finalizers": ["nodomain"]}})).await;
    assert_eq!(code, 422, "{refused}");
    let message = "ConfigMap \"a\" is invalid: metadata.finalizers[0]: Invalid value: \"nodomain\": name is neither a standard finalizer \
                   name nor is it fully qualified";
    assert_eq!(refused["message"], message);
    let (code, _) =
        cluster.admin(Method::PATCH, &format!("{MAPS}/a"), json!({"metadata": {"finalizers": ["orphan", "example.test/a"]}})).await;
    assert_eq!(code, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_replace_and_patch_of_a_replica_set() {
    let cluster = Cluster::start().await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    assert_eq!(cluster.admin(Method::POST, sets, set).await.0, 201);
    let change = json!({"metadata": {"labels": {"patched": "true"}}, "spec": {"replicas": 3, "template": {"spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "two"}]}}}});
    let (code, patched) = patch(&cluster, &format!("{sets}/r"), "strategic-merge", change).await;
    assert_eq!((code, &patched["spec"]["replicas"], &patched["metadata"]["generation"]), (200, &json!(3), &json!(2)), "{patched}");
    let template = &patched["spec"]["template"]["spec"];
    assert_eq!((&template["terminationGracePeriodSeconds"], &template["containers"][0]["image"]), (&json!(0), &json!("two")));
    cluster.stop().await;
}
