//! What joins an object's own transaction, and the parts of objects with rules of their own.

use crate::support::Cluster;
use http::Method;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_ports_have_one_owner() {
    let cluster = Cluster::start().await;
    let wanted = json!({"clusterIP": "10.43.7.7", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30100}]});
    let (code, first) = cluster.admin(Method::POST, SERVICES, service("a", wanted.clone())).await;
    assert_eq!(code, 201, "{first}");
    let (code, refused) = cluster.admin(Method::POST, SERVICES, service("b", wanted.clone())).await;
    assert_eq!(code, 422, "{refused}");
    let text = refused["message"].as_str().unwrap();
    assert!(text.contains("provided IP is already allocated") && text.contains("provided port is already allocated"), "{text}");

    // Racing for one address: exactly one wins.
    let racers = (0..8).map(|n| {
        cluster.admin(Method::POST, SERVICES, service(&format!("r{n}"), json!({"clusterIP": "10.43.9.9", "ports": [{"port": 1}]})))
    });
    let codes: Vec<u16> = futures::future::join_all(racers).await.into_iter().map(|(code, _)| code).collect();
    assert_eq!((codes.iter().filter(|c| **c == 201).count(), codes.iter().filter(|c| **c == 422).count()), (1, 7), "{codes:?}");

    // A PUT that leaves the address out keeps it; deletion frees both.
    let mut bare = first.clone();
    for key in ["clusterIP", "clusterIPs"] {
        bare["spec"].as_object_mut().unwrap().remove(key);
    }
    let (code, kept) = cluster.admin(Method::PUT, &format!("{SERVICES}/a"), bare).await;
    assert_eq!(
        (code, kept["spec"]["clusterIP"].as_str(), &kept["spec"]["ports"][0]["nodePort"]),
        (200, Some("10.43.7.7"), &json!(30100)),
        "{kept}"
    );
    cluster.admin(Method::DELETE, &format!("{SERVICES}/a"), Value::Null).await;
    let (code, again) = cluster.admin(Method::POST, SERVICES, service("b", wanted)).await;
    assert_eq!(code, 201, "{again}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_spent_once() {
    let cluster = Cluster::start().await;
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    assert_eq!(cluster.admin(Method::POST, budgets, budget).await.0, 201);
    let status =
        json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3, "observedGeneration": 1}});
    let (code, answer) = cluster.admin(Method::PATCH, &format!("{budgets}/b/status"), status).await;
    assert_eq!(code, 200, "{answer}");
    for name in ["p0", "p1", "p2"] {
        assert_eq!(cluster.admin(Method::POST, PODS, pod(name)).await.0, 201);
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(cluster.admin(Method::PATCH, &format!("{PODS}/{name}/status"), ready).await.0, 200);
    }
    let evictions = ["p0", "p1", "p2"].map(|name| {
        let cluster = &cluster;
        async move {
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
            cluster.admin(Method::POST, &format!("{PODS}/{name}/eviction"), eviction).await
        }
    });
    let answers = futures::future::join_all(evictions).await;
    let mut codes: Vec<u16> = answers.iter().map(|(code, _)| *code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [201, 429, 429], "{answers:?}");
    let refused = answers.iter().find(|(code, _)| *code == 429).unwrap();
    assert_eq!(refused.1["details"]["causes"][0]["reason"], "DisruptionBudget");
    let (_, budget) = cluster.admin(Method::GET, &format!("{budgets}/b"), Value::Null).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], json!(0));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binding_scale_and_namespaces() {
    let cluster = Cluster::start().await;
    cluster.admin(Method::POST, PODS, pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let (code, bound) = cluster.admin(Method::POST, &format!("{PODS}/p/binding"), binding.clone()).await;
    assert_eq!((code, bound["status"].as_str()), (201, Some("Success")), "{bound}");
    let (code, twice) = cluster.admin(Method::POST, &format!("{PODS}/p/binding"), binding).await;
    assert_eq!((code, twice["reason"].as_str()), (409, Some("Conflict")), "{twice}");
    // A bound pod ends gracefully: marked first, gone with the confirmation of its node.
    let (code, marked) = cluster.admin(Method::DELETE, &format!("{PODS}/p"), Value::Null).await;
    assert_eq!((code, &marked["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)), "{marked}");
    let (code, _) = cluster.admin(Method::DELETE, &format!("{PODS}/p?gracePeriodSeconds=0"), Value::Null).await;
    assert_eq!((code, cluster.admin(Method::GET, &format!("{PODS}/p"), Value::Null).await.0), (200, 404));

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(cluster.admin(Method::POST, deployments, deployment).await.0, 201);
    let (code, scaled) = cluster.admin(Method::PATCH, &format!("{deployments}/d/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"], scaled["status"]["selector"].as_str()), (200, &json!(4), Some("a=b")), "{scaled}");
    let (_, read) = cluster.admin(Method::GET, &format!("{deployments}/d"), Value::Null).await;
    assert_eq!((&read["spec"]["replicas"], &read["metadata"]["generation"]), (&json!(4), &json!(2)));

    // A namespace goes when its finalizer does.
    cluster.admin(Method::POST, "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})).await;
    let (code, ending) = cluster.admin(Method::DELETE, "/api/v1/namespaces/x", Value::Null).await;
    assert_eq!((code, ending["status"]["phase"].as_str()), (200, Some("Terminating")), "{ending}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let (code, refused) = cluster.admin(Method::POST, "/api/v1/namespaces/x/configmaps", map).await;
    assert_eq!((code, refused["details"]["causes"][0]["reason"].as_str()), (403, Some("NamespaceTerminating")), "{refused}");
    let mut done = ending.clone();
    done["spec"]["finalizers"] = json!([]);
    let (code, answer) = cluster.admin(Method::PUT, "/api/v1/namespaces/x/finalize", done).await;
    assert_eq!((code, cluster.admin(Method::GET, "/api/v1/namespaces/x", Value::Null).await.0), (200, 404), "{answer}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_in_the_store() {
    let cluster = Cluster::start().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hunter2"}});
    assert_eq!(cluster.admin(Method::POST, "/api/v1/namespaces/default/secrets", secret).await.0, 201);
    let request = trireme_apiserver::storage::keys::get("/registry/core/secrets/default/s");
    let value = cluster.store.range(&request).unwrap().kvs.remove(0).value;
    assert!(!value.windows(8).any(|w| w == b"aHVudGVy"), "base64 of the secret is in the store");
    let (_, read) = cluster.admin(Method::GET, "/api/v1/namespaces/default/secrets/s", Value::Null).await;
    assert_eq!(read["data"]["k"], "aHVudGVyMg==");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_pod_says_why_it_ends() {
    let cluster = Cluster::start().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let (code, answer) = cluster.admin(Method::POST, PODS, pod).await;
    assert_eq!(code, 201, "{answer}");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (code, answer) = cluster.admin(Method::POST, &format!("{PODS}/p/eviction"), eviction).await;
    assert_eq!(code, 201, "{answer}");
    let (_, ending) = cluster.admin(Method::GET, &format!("{PODS}/p"), Value::Null).await;
    assert!(ending["metadata"]["deletionTimestamp"].is_string());
    let conditions = ending["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    let said = (condition["status"].as_str(), condition["reason"].as_str(), condition["message"].as_str());
    assert_eq!(said, (Some("True"), Some("EvictionByEvictionAPI"), Some("Eviction API: evicting")));
    cluster.stop().await;
}
