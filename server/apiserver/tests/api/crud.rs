//! The pipeline through in-process requests: write, read, list, watch, conflict, delete.

use crate::support::{Cluster, Events};
use http::Method;
use serde_json::{Value, json};

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"set": value}}, "data": {"k": value}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn objects_live_and_die() {
    let cluster = Cluster::start().await;
    let (code, made) = cluster.admin(Method::POST, MAPS, config_map("a", "1")).await;
    assert_eq!(code, 201, "{made}");
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let (code, again) = cluster.admin(Method::POST, MAPS, config_map("a", "1")).await;
    assert_eq!((code, again["reason"].as_str()), (409, Some("AlreadyExists")));

    let (code, read) = cluster.admin(Method::GET, &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!((code, &read), (200, &made), "what is read is what create answered");

    // A stale resourceVersion loses, the current one wins, and writing the same again changes nothing.
    let mut stale = made.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    let (code, refused) = cluster.admin(Method::PUT, &format!("{MAPS}/a"), stale).await;
    assert_eq!((code, refused["reason"].as_str()), (409, Some("Conflict")), "{refused}");
    let mut newer = made.clone();
    newer["data"]["k"] = json!("2");
    let (code, updated) = cluster.admin(Method::PUT, &format!("{MAPS}/a"), newer).await;
    assert_eq!(code, 200, "{updated}");
    assert_ne!(updated["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (_, same) = cluster.admin(Method::PUT, &format!("{MAPS}/a"), updated.clone()).await;
    assert_eq!(same, updated);

    let (code, patched) = cluster.admin(Method::PATCH, &format!("{MAPS}/a"), json!({"data": {"k": null, "n": "3"}})).await;
    assert_eq!((code, &patched["data"]), (200, &json!({"n": "3"})), "{patched}");

    let (code, gone) = cluster.admin(Method::DELETE, &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!((code, gone["status"].as_str()), (200, Some("Success")), "{gone}");
    let (code, _) = cluster.admin(Method::GET, &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(code, 404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_at_one_revision() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        cluster.admin(Method::POST, MAPS, config_map(name, if name < "c" { "x" } else { "y" })).await;
    }
    let names = |list: &Value| -> String {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(",")
    };
    let (_, first) = cluster.admin(Method::GET, &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!((names(&first).as_str(), &first["metadata"]["remainingItemCount"]), ("a,b", &json!(3)));
    // Later changes are not in the rest of the list.
    cluster.admin(Method::DELETE, &format!("{MAPS}/d"), Value::Null).await;
    cluster.admin(Method::POST, MAPS, config_map("bb", "x")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = cluster.admin(Method::GET, &format!("{MAPS}?limit=9&continue={token}"), Value::Null).await;
    assert_eq!(names(&rest), "c,d,e");
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    let (_, exact) = cluster
        .admin(
            Method::GET,
            &format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={}", first["metadata"]["resourceVersion"].as_str().unwrap()),
            Value::Null,
        )
        .await;
    assert_eq!(names(&exact), "a,b,c,d,e");
    let (_, selected) = cluster.admin(Method::GET, &format!("{MAPS}?labelSelector=set%3Dx"), Value::Null).await;
    assert_eq!(names(&selected), "a,b,bb");
    let (_, selected) = cluster.admin(Method::GET, "/api/v1/configmaps?fieldSelector=metadata.name%3De", Value::Null).await;
    assert_eq!(names(&selected), "e");
    let (code, late) = cluster.admin(Method::GET, &format!("{MAPS}?resourceVersion=99999"), Value::Null).await;
    assert_eq!((code, late["details"]["causes"][0]["reason"].as_str()), (504, Some("ResourceVersionTooLarge")));

    cluster.store.compact(cluster.store.revision()).await.unwrap();
    let (code, expired) = cluster.admin(Method::GET, &format!("{MAPS}?limit=9&continue={token}"), Value::Null).await;
    assert_eq!((code, expired["reason"].as_str()), (410, Some("Expired")), "{expired}");
    let again = expired["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = cluster.admin(Method::GET, &format!("{MAPS}?continue={again}"), Value::Null).await;
    assert_eq!((code, names(&rest).as_str()), (200, "bb,c,e"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_see_selection_come_and_go() {
    // A window of a few changes: an older revision must come from the store's history.
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.watch_window_bytes = 3000).await;
    let (_, made) = cluster.admin(Method::POST, MAPS, config_map("a", "x")).await;
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    let open = |query: String| {
        let cluster = &cluster;
        async move { Events::new(cluster.send(Method::GET, &format!("{MAPS}?watch=1&{query}"), Value::Null, &[]).await) }
    };
    let mut all = open(format!("resourceVersion={from}")).await;
    let mut selected = open(format!("resourceVersion={from}&labelSelector=set%3Dx")).await;
    let mut streamed = open("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true".to_owned()).await;
    assert_eq!(streamed.named().await, ("ADDED".to_owned(), "a".to_owned()));
    let (kind, bookmark) = streamed.next().await.unwrap();
    assert_eq!((kind.as_str(), &bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));

    let path = format!("{MAPS}/a");
    cluster.admin(Method::PATCH, &path, json!({"metadata": {"labels": {"set": "y"}}})).await;
    let (_, back) = cluster.admin(Method::PATCH, &path, json!({"metadata": {"labels": {"set": "x"}}})).await;
    cluster.admin(Method::DELETE, &path, Value::Null).await;

    for want in ["MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.named().await, (want.to_owned(), "a".to_owned()));
    }
    // Leaving a selection is a deletion that shows the old content under the new revision.
    let (kind, left) = selected.next().await.unwrap();
    assert_eq!((kind.as_str(), &left["metadata"]["labels"]["set"]), ("DELETED", &json!("x")));
    assert_eq!(selected.named().await.0, "ADDED");
    let (kind, last) = selected.next().await.unwrap();
    assert_eq!((kind.as_str(), &last["metadata"]["labels"]["set"]), ("DELETED", &json!("x")));
    assert!(last["metadata"]["resourceVersion"] != back["metadata"]["resourceVersion"]);

    // A compacted revision is 410, in the stream.
    cluster.store.compact(cluster.store.revision()).await.unwrap();
    let mut old = open("resourceVersion=1".to_owned()).await;
    let (kind, status) = old.next().await.unwrap();
    assert_eq!((kind.as_str(), status["code"].as_i64(), status["reason"].as_str()), ("ERROR", Some(410), Some("Expired")));
    assert!(old.next().await.is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_sleep_through_the_changes_of_others_miss_none_of_theirs() {
    const NODES: &str = "/api/v1/nodes";
    // The window is overrun many times while nothing concerns the narrow watches.
    let cluster = Cluster::start_on("127.0.0.1:0", |options, _| options.watch_window_bytes = 3000).await;
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let (_, first) = cluster.admin(Method::POST, NODES, node("first")).await;
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let open = |query: &'static str| {
        let target = format!("{NODES}?watch=1&resourceVersion={from}&fieldSelector={query}");
        let cluster = &cluster;
        async move { Events::new(cluster.send(Method::GET, &target, Value::Null, &[]).await) }
    };
    let mut cordoned = open("spec.unschedulable%3Dtrue").await;
    let mut named = open("metadata.name%3Dfirst").await;
    let mut others = open("metadata.name%21%3Dfirst").await;
    let cordon = |on: bool| cluster.admin(Method::PATCH, "/api/v1/nodes/first", json!({"spec": {"unschedulable": on}}));
    for round in 0..3 {
        for n in 0..20 {
            let name = format!("n{round}-{n}");
            cluster.admin(Method::POST, NODES, node(&name)).await;
            assert_eq!(others.named().await, ("ADDED".to_owned(), name));
        }
        cordon(true).await;
        assert_eq!(cordoned.named().await, ("ADDED".to_owned(), "first".to_owned()));
        cordon(false).await;
        assert_eq!(cordoned.named().await, ("DELETED".to_owned(), "first".to_owned()));
        for _ in 0..2 {
            assert_eq!(named.named().await, ("MODIFIED".to_owned(), "first".to_owned()));
        }
    }
    cluster.admin(Method::DELETE, "/api/v1/nodes/first", Value::Null).await;
    assert_eq!(named.named().await, ("DELETED".to_owned(), "first".to_owned()));
    cluster.stop().await;
}

/// A body in gzip, and how it was sent.
async fn unzipped(response: http::Response<trireme_apiserver::Body>) -> Vec<u8> {
    use http_body_util::BodyExt;
    use std::io::Read;
    assert_eq!((response.status().as_u16(), response.headers()["content-encoding"].to_str().unwrap()), (200, "gzip"));
    assert_eq!(response.headers()["vary"], "Accept-Encoding");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
    assert!(bytes.len() < plain.len());
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn case_54_large_answers_are_compressed() {
    let map =
        |name: &str, value: String| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}});
    let cluster = Cluster::start().await;
    for n in 0..4 {
        let (code, answer) = cluster.admin(Method::POST, MAPS, map(&format!("m{n}"), "word ".repeat(16_000))).await;
        assert_eq!(code, 201, "{answer}");
    }
    let large = cluster.admin(Method::POST, MAPS, map("large", "x".repeat(200_000))).await;
    assert_eq!(large.0, 201);
    let gzip = [("accept-encoding", "br, gzip")];
    let get = |target: &'static str| cluster.send(Method::GET, target, Value::Null, &gzip);
    for target in [MAPS, "/api/v1/namespaces/default/configmaps/large", "/openapi/v2", "/openapi/v3/apis/apps/v1"] {
        let (_, plain) = crate::support::read(cluster.send(Method::GET, target, Value::Null, &[]).await).await;
        let answered = unzipped(cluster.send(Method::GET, target, Value::Null, &gzip).await).await;
        assert_eq!(serde_json::from_slice::<Value>(&answered).unwrap(), plain, "{target}");
    }
    // Small answers, and those without an end, are not.
    for target in
        ["/api/v1/namespaces/default/configmaps/m0", "/version", "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1"]
    {
        assert_eq!(get(target).await.headers().get("content-encoding"), None, "{target}");
    }
    let refused = cluster.send(Method::GET, MAPS, Value::Null, &[("accept-encoding", "gzip;q=0, br")]).await;
    assert_eq!(refused.headers().get("content-encoding"), None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_claims_and_volumes_are_protected() {
    let cluster = Cluster::start().await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec});
    let (code, made) = cluster.admin(Method::POST, "/api/v1/namespaces/default/persistentvolumeclaims", claim).await;
    assert_eq!((code, &made["metadata"]["finalizers"]), (201, &json!(["kubernetes.io/pvc-protection"])), "{made}");
    let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp"}});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec});
    let (code, made) = cluster.admin(Method::POST, "/api/v1/persistentvolumes", volume).await;
    assert_eq!((code, &made["metadata"]["finalizers"]), (201, &json!(["kubernetes.io/pv-protection"])), "{made}");
    cluster.stop().await;
}
