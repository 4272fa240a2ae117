//! Quotas: what writes charge, and what is refused.

use crate::support::Cluster;
use http::Method;
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A quota as the controller leaves it.
async fn quota(cluster: &Cluster, name: &str, hard: Value, used: Value) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
    let (code, answer) = cluster.admin(Method::POST, QUOTAS, quota).await;
    assert_eq!(code, 201, "{answer}");
    let status = json!({"status": {"hard": hard, "used": used}});
    let (code, answer) = cluster.admin(Method::PATCH, &format!("{QUOTAS}/{name}/status"), status).await;
    assert_eq!((code, &answer["status"]["used"]), (200, &used), "{answer}");
    cluster.seen(&answer).await;
}

async fn used(cluster: &Cluster, name: &str) -> Value {
    cluster.admin(Method::GET, &format!("{QUOTAS}/{name}"), Value::Null).await.1["status"]["used"].clone()
}

async fn race(cluster: &Cluster, number: usize) -> Vec<(u16, Value)> {
    let secret = |n| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s{n}")}});
    futures::future::join_all((0..number).map(|n| cluster.admin(Method::POST, SECRETS, secret(n)))).await
}

fn count(answers: &[(u16, Value)], code: u16) -> usize {
    answers.iter().filter(|(given, _)| *given == code).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_whoever_races() {
    let cluster = Cluster::start().await;
    quota(&cluster, "q", json!({"secrets": "3", "count/secrets": "10"}), json!({"secrets": "0", "count/secrets": "0"})).await;
    let answers = race(&cluster, 12).await;
    assert_eq!((count(&answers, 201), count(&answers, 403)), (3, 9), "{answers:?}");
    let (_, refused) = answers.into_iter().find(|(code, _)| *code == 403).unwrap();
    let text = refused["message"].as_str().unwrap();
    assert!(text.ends_with("is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=3, limited: secrets=3"), "{text}");
    assert_eq!(used(&cluster, "q").await, json!({"secrets": "3", "count/secrets": "3"}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_quotas_hold_together() {
    let cluster = Cluster::start().await;
    quota(&cluster, "p", json!({"secrets": "5"}), json!({"secrets": "0"})).await;
    quota(&cluster, "q", json!({"secrets": "4"}), json!({"secrets": "0"})).await;
    let answers = race(&cluster, 12).await;
    assert_eq!((count(&answers, 201), count(&answers, 403)), (4, 8), "{answers:?}");
    assert_eq!(used(&cluster, "q").await, json!({"secrets": "4"}));
    let quota =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "third"}, "spec": {"hard": {"resourcequotas": "9"}}});
    assert_eq!(cluster.admin(Method::POST, QUOTAS, quota).await.0, 201, "a quota may be written beside others");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_answer_for_what_they_ask() {
    let cluster = Cluster::start().await;
    let hard = json!({"requests.cpu": "1", "limits.memory": "1Gi", "requests.example.com/gpu": "1"});
    quota(&cluster, "q", hard, json!({"requests.cpu": "0", "limits.memory": "0", "requests.example.com/gpu": "0"})).await;
    let pod = |name: &str, resources: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
    };
    let (code, refused) = cluster.admin(Method::POST, PODS, pod("a", json!({}))).await;
    let text = "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c";
    assert_eq!((code, refused["message"].as_str().unwrap()), (403, text));
    let asking = json!({"requests": {"cpu": "600m", "example.com/gpu": "1"}, "limits": {"memory": "256Mi", "example.com/gpu": "1"}});
    let (code, answer) = cluster.admin(Method::POST, PODS, pod("a", asking.clone())).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(used(&cluster, "q").await, json!({"requests.cpu": "600m", "limits.memory": "256Mi", "requests.example.com/gpu": "1"}));
    let (code, refused) = cluster.admin(Method::POST, PODS, pod("b", asking)).await;
    let text = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m,requests.example.com/gpu=1, \
        used: requests.cpu=600m,requests.example.com/gpu=1, limited: requests.cpu=1,requests.example.com/gpu=1";
    assert_eq!((code, refused["message"].as_str().unwrap()), (403, text));
    cluster.stop().await;
}
