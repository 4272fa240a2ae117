//! Admission webhooks, served by real HTTPS servers of this test.

use crate::crd::definitions;
use crate::support::Cluster;
use crate::support::hook::Hook;
use base64::Engine;
use futures::future::BoxFuture;
use http::Method;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Answers each request with what `verdict` says.
async fn hook(verdict: impl Fn(&Value) -> BoxFuture<'static, Value> + Send + Sync + 'static) -> Hook {
    crate::support::hook::serve(move |question| {
        let verdict = verdict(&question["request"]);
        Box::pin(async move {
            let mut response = verdict.await;
            response["uid"] = question["request"]["uid"].clone();
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
        })
    })
    .await
}

fn says(verdict: Value) -> impl Fn(&Value) -> BoxFuture<'static, Value> + Send + Sync + 'static {
    move |_| {
        let verdict = verdict.clone();
        Box::pin(async move { verdict })
    }
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": base64::engine::general_purpose::STANDARD.encode(operations.to_string())})
}

/// Registers `hook` for ConfigMaps; `more` changes its entry.
async fn register(cluster: &Cluster, kind: &str, name: &str, hook: &Hook, more: Value) {
    let mut entry = json!({
        "name": format!("{name}.test.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": hook.url, "caBundle": hook.ca},
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]
    });
    for (field, value) in more.as_object().unwrap() {
        entry[field] = value.clone();
    }
    let path = format!("/apis/admissionregistration.k8s.io/v1/{}s", kind.to_lowercase());
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [entry]});
    let (code, answer) = cluster.admin(Method::POST, &path, body).await;
    assert_eq!(code, 201, "{answer}");
    cluster.seen(&answer).await;
}

async fn create(cluster: &Cluster, name: &str, data: Value) -> (u16, Value) {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    cluster.admin(Method::POST, CONFIG_MAPS, body).await
}

#[tokio::test]
async fn mutating_webhooks_change_and_validating_ones_judge_the_changed_object() {
    let cluster = Cluster::start().await;
    let first = hook(says(patch(&json!([{"op": "add", "path": "/data/first", "value": "yes"}])))).await;
    let second = hook(says(patch(&json!([{"op": "add", "path": "/data/second", "value": "yes"}])))).await;
    let judge = hook(|request| {
        let refused = request["object"]["data"]["bad"] == "yes";
        let verdict = match refused {
            true => json!({"allowed": false, "status": {"message": "it is bad", "code": 403, "reason": "Bad"}}),
            false => json!({"allowed": true, "warnings": ["careful"]}),
        };
        Box::pin(async move { verdict })
    })
    .await;
    register(&cluster, "MutatingWebhookConfiguration", "a", &first, json!({"reinvocationPolicy": "IfNeeded"})).await;
    register(&cluster, "MutatingWebhookConfiguration", "b", &second, json!({})).await;
    register(&cluster, "ValidatingWebhookConfiguration", "judge", &judge, json!({})).await;

    let (code, made) = create(&cluster, "good", json!({"own": "yes"})).await;
    assert_eq!((code, &made["data"]), (201, &json!({"own": "yes", "first": "yes", "second": "yes"})), "{made}");
    assert_eq!(first.asked.lock().len(), 2, "once more, since the second one changed the object after it");
    assert_eq!(second.asked.lock().len(), 1, "it never asks to be asked again");
    let judged = judge.asked.lock()[0].clone();
    assert_eq!(judged["object"]["data"]["second"], "yes");
    assert_eq!((&judged["operation"], &judged["namespace"], &judged["name"]), (&json!("CREATE"), &json!("default"), &json!("good")));
    assert_eq!(judged["userInfo"]["username"], "admin");
    assert_eq!(judged["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert!(judged["oldObject"].is_null() && judged["object"]["metadata"]["uid"].is_string());

    let (code, refused) = create(&cluster, "bad", json!({"bad": "yes"})).await;
    assert_eq!((code, &refused["reason"]), (403, &json!("Bad")));
    assert_eq!(refused["message"], r#"admission webhook "judge.test.io" denied the request: it is bad"#);
    assert_eq!(cluster.admin(Method::GET, &format!("{CONFIG_MAPS}/bad"), Value::Null).await.0, 404);
    assert_eq!(*judge.connections.lock(), 1, "connections are used again");
    cluster.stop().await;
}

#[tokio::test]
async fn what_cannot_be_asked_fails_or_is_ignored_as_configured() {
    let cluster = Cluster::start().await;
    let slow = hook(|_| Box::pin(std::future::pending())).await;
    register(&cluster, "ValidatingWebhookConfiguration", "slow", &slow, json!({"timeoutSeconds": 1})).await;
    let (code, answer) = create(&cluster, "one", json!({})).await;
    let message = answer["message"].as_str().unwrap();
    assert_eq!(code, 500, "{answer}");
    assert!(message.contains(r#"failed calling webhook "slow.test.io": failed to call webhook: Post "https://localhost:"#), "{message}");
    assert!(message.ends_with(r#"/check?timeout=1s": context deadline exceeded"#), "{message}");

    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/slow";
    let change = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let response = cluster.send(Method::PATCH, path, change, &[("content-type", "application/json-patch+json")]).await;
    let (code, changed) = crate::support::read(response).await;
    assert_eq!(code, 200, "no webhook is asked about its own configuration: {changed}");
    cluster.seen(&changed).await;
    assert_eq!(create(&cluster, "two", json!({})).await.0, 201);

    // The configuration names another authority than the one that signed the webhook's certificate.
    let liar = hook(says(json!({"allowed": true}))).await;
    let bundle = json!({"clientConfig": {"url": liar.url, "caBundle": slow.ca}});
    register(&cluster, "MutatingWebhookConfiguration", "liar", &liar, bundle).await;
    let (code, answer) = create(&cluster, "three", json!({})).await;
    assert_eq!(code, 500);
    assert!(answer["message"].as_str().unwrap().contains("tls: invalid peer certificate"), "{answer}");
    assert!(liar.asked.lock().is_empty());
    cluster.stop().await;
}

#[tokio::test]
async fn selectors_and_dry_run_reach_the_webhook() {
    let cluster = Cluster::start().await;
    let asked = hook(says(json!({"allowed": false}))).await;
    let selectors = json!({"objectSelector": {"matchLabels": {"judge": "me"}}, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}});
    register(&cluster, "ValidatingWebhookConfiguration", "some", &asked, selectors).await;
    assert_eq!(create(&cluster, "free", json!({})).await.0, 201);
    let labelled = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "judged", "labels": {"judge": "me"}}});
    let (code, answer) = cluster.admin(Method::POST, &format!("{CONFIG_MAPS}?dryRun=All"), labelled.clone()).await;
    assert_eq!(
        (code, answer["message"].as_str()),
        (400, Some(r#"admission webhook "some.test.io" denied the request without explanation"#))
    );
    assert_eq!(asked.asked.lock()[0]["dryRun"], true);
    let elsewhere = "/api/v1/namespaces/kube-public/configmaps";
    assert_eq!(cluster.admin(Method::POST, elsewhere, labelled).await.0, 201);
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_webhook_adds_is_pruned_and_must_fit_the_type() {
    let cluster = Cluster::start().await;
    let added = json!([{"op": "add", "path": "/data/known", "value": "yes"}, {"op": "add", "path": "/data/unknown", "value": "yes"}]);
    let adds = hook(says(patch(&added))).await;
    let boats_too =
        json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["ships.example.com"], "apiVersions": ["v1"], "resources": ["boats"]}]});
    register(&cluster, "MutatingWebhookConfiguration", "adds", &adds, boats_too).await;
    let schema = json!({"type": "object", "properties": {"data": {"type": "object", "properties": {"known": {"type": "string"}}}}});
    definitions::establish(&cluster, definitions::boats(schema)).await;
    let boat = json!({"apiVersion": "ships.example.com/v1", "kind": "Boat", "metadata": {"name": "one"}, "data": {}});
    let path = "/apis/ships.example.com/v1/namespaces/default/boats";
    let (code, made) = cluster.admin(Method::POST, path, boat).await;
    assert_eq!((code, &made["data"]), (201, &json!({"known": "yes"})), "{made}");

    let odd = |request: &Value| {
        let value = if request["object"]["data"]["wrong"] == "yes" { json!(["not", "a", "string"]) } else { json!("a string") };
        let operations = json!([{"op": "add", "path": "/data/added", "value": value}, {"op": "add", "path": "/unknown", "value": 1}]);
        Box::pin(async move { patch(&operations) }) as BoxFuture<'static, Value>
    };
    let odd = hook(odd).await;
    register(&cluster, "MutatingWebhookConfiguration", "odd", &odd, json!({})).await;
    let (code, made) = create(&cluster, "fits", json!({"own": "yes"})).await;
    assert_eq!((code, &made["data"], made.get("unknown")), (201, &json!({"own": "yes", "added": "a string"}), None), "{made}");
    let (code, refused) = create(&cluster, "wrong", json!({"wrong": "yes"})).await;
    assert_eq!(code, 500, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("odd.test.io") && message.contains("cannot unmarshal array into"), "{message}");
    cluster.stop().await;
}
