//! The audit webhook, which is a real HTTPS server of this test: what it gets, and what becomes of what it does not get.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use trireme_apiserver::audit::webhook::{Mode, WebhookOptions};
use trireme_apiserver::audit::{Audit, AuditOptions};

use crate::support::hook::{self, Hook};
use crate::support::{Cluster, PATIENCE, read};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A webhook, and the lists that it got.
async fn receiver() -> (Hook, Arc<Mutex<Vec<Value>>>) {
    let lists: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = lists.clone();
    let hook = hook::serve(move |list| {
        log.lock().push(list);
        Box::pin(async { json!({}) })
    })
    .await;
    (hook, lists)
}

/// Audit of config maps by a webhook at this URL.
fn open(home: &Path, url: &str, ca: &str, change: impl FnOnce(&mut WebhookOptions)) -> Arc<Audit> {
    let policy = home.join("policy.yaml");
    let rules = json!([{"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}], "omitStages": ["RequestReceived"]}]);
    std::fs::write(&policy, json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}).to_string()).unwrap();
    let config = home.join("webhook.yaml");
    let cluster = json!({"server": url, "certificate-authority-data": ca});
    let file = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "k", "cluster": cluster}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}], "users": [{"name": "u", "user": {"token": "t"}}]});
    std::fs::write(&config, file.to_string()).unwrap();
    let mut webhook = WebhookOptions::new(config);
    webhook.initial_backoff = Duration::from_millis(1);
    change(&mut webhook);
    Arc::new(Audit::open(AuditOptions { policy, log: None, strict: false, webhook: Some(webhook) }).unwrap())
}

async fn make(cluster: &Cluster, name: &str, data: &str) -> (u16, Value) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": data}});
    read(cluster.send(Method::POST, CONFIG_MAPS, map, &[("content-type", "application/json"), ("audit-id", name)]).await).await
}

fn events(lists: &Mutex<Vec<Value>>) -> Vec<Value> {
    lists.lock().iter().flat_map(|list| list["items"].as_array().unwrap().clone()).collect()
}

/// The number of events that a plugin has lost.
async fn lost(cluster: &Cluster, plugin: &str) -> u64 {
    let text = read(cluster.send(Method::GET, "/metrics", Value::Null, &[]).await).await.1;
    let series = format!(r#"apiserver_audit_error_total{{plugin="{plugin}"}} "#);
    text.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_delivered_in_batches_and_none_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let (hook, lists) = receiver().await;
    let audit = open(home.path(), &hook.url, &hook.ca, |options| {
        options.batch.max_size = 4;
        options.batch.max_wait = Duration::from_secs(3600);
        options.truncates_events = true;
        options.event_bytes_max = 4000;
    });
    let kept = audit.clone();
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
    for number in 0..10 {
        let data = if number == 3 { "x".repeat(5000) } else { "x".to_owned() };
        assert_eq!(make(&cluster, &format!("m{number}"), &data).await.0, 201);
    }
    // Two batches are full; what is left waits for more, or for the end.
    kept.flush(PATIENCE).await;
    let events = events(&lists);
    let mut ids: Vec<&str> = events.iter().map(|event| event["auditID"].as_str().unwrap()).filter(|id| id.starts_with('m')).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9"]);
    assert!(lists.lock().iter().all(|list| list["kind"] == "EventList" && list["items"].as_array().unwrap().len() <= 4));
    let short = events.iter().find(|event| event["auditID"] == "m3").unwrap();
    assert_eq!((short.get("requestObject"), &short["annotations"]["audit.k8s.io/truncated"]), (None, &json!("true")));
    let whole = events.iter().find(|event| event["auditID"] == "m4").unwrap();
    assert_eq!(whole["requestObject"]["data"]["a"], "x");
    assert_eq!((lost(&cluster, "buffered").await, lost(&cluster, "webhook").await), (0, 0));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_webhook_has_the_event_before_the_answer() {
    let home = tempfile::tempdir().unwrap();
    let (hook, lists) = receiver().await;
    let audit = open(home.path(), &hook.url, &hook.ca, |options| options.mode = Mode::Blocking);
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
    for number in 0..5 {
        let name = format!("m{number}");
        assert_eq!(make(&cluster, &name, "x").await.0, 201);
        assert!(events(&lists).iter().any(|event| event["auditID"] == name.as_str()));
    }
    assert!(*hook.connections.lock() <= 2, "the connection is kept");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_that_is_down_does_not_get_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let (hook, _) = receiver().await;
    let down = "https://localhost:1/check";
    let audit = open(home.path(), down, &hook.ca, |options| {
        options.batch.max_size = 1;
        options.batch.buffer = 2;
        options.batch.rate = 0.5;
        options.batch.burst = 1;
    });
    let kept = audit.clone();
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
    for number in 0..20 {
        assert_eq!(make(&cluster, &format!("m{number}"), "x").await.0, 201, "no request waits");
    }
    let dropped = lost(&cluster, "buffered").await;
    assert!((10..20).contains(&dropped), "the buffer is bounded: {dropped} dropped");
    kept.flush(PATIENCE).await;
    // Flushing has waited for all deliveries: each event was dropped, or tried in vain. Another config map is made by the start.
    let (dropped, failed) = (lost(&cluster, "buffered").await, lost(&cluster, "webhook").await);
    assert!(dropped + failed >= 20 && failed >= 2, "{dropped} dropped, {failed} not delivered");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_webhook_refuses_what_it_does_not_get() {
    let home = tempfile::tempdir().unwrap();
    let (hook, _) = receiver().await;
    let audit = open(home.path(), "https://localhost:1/check", &hook.ca, |options| options.mode = Mode::BlockingStrict);
    // Only requests of config maps in this namespace are recorded, with their receipt.
    let rules = json!([{"level": "Metadata", "namespaces": ["default"], "resources": [{"resources": ["configmaps"]}]}]);
    std::fs::write(home.path().join("policy.yaml"), json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}).to_string())
        .unwrap();
    drop(audit);
    let mut webhook = WebhookOptions::new(home.path().join("webhook.yaml"));
    (webhook.mode, webhook.initial_backoff) = (Mode::BlockingStrict, Duration::from_millis(1));
    let options = AuditOptions { policy: home.path().join("policy.yaml"), log: None, strict: false, webhook: Some(webhook) };
    let audit = Arc::new(Audit::open(options).unwrap());
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.audit = Some(audit)).await;
    let (code, answer) = make(&cluster, "m", "x").await;
    assert!(code == 500 && answer["message"].as_str().unwrap().contains("audit event"), "{code} {answer}");
    cluster.stop().await;
}
