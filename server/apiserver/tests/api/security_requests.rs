//! How requests are read: what one user, one node or a stranger must not achieve by the form of a request. Each test is named after
//! the finding of the security review that it keeps closed.

use std::sync::Arc;

use crate::support::{Cluster, Events, PATIENCE, read};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trireme_apiserver::Caller;
use trireme_apiserver::UserInfo;
use trireme_cluster::pki::{Issued, Profile};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn user(name: &str) -> Caller {
    Caller { user: UserInfo::new(name, &["system:authenticated"]), fence: None }
}

/// A request of a user, by name.
async fn ask(cluster: &Cluster, who: &str, method: Method, target: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(target).header("content-type", "application/json").body(body).unwrap();
    read(cluster.api.call(user(who), request).await).await
}

async fn get(cluster: &Cluster, who: &str, target: &str) -> u16 {
    ask(cluster, who, Method::GET, target, Value::Null).await.0
}

async fn made(cluster: &Cluster, target: &str, body: Value) -> Value {
    let (code, answer) = cluster.admin(Method::POST, target, body).await;
    assert_eq!(code, 201, "{target}: {answer}");
    answer
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// A Role with `rules` in `namespace`, bound to a user.
async fn grant(cluster: &Cluster, namespace: &str, who: &str, rules: Value) {
    let meta = |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": who}});
    let mut role = meta("Role");
    role["rules"] = rules;
    made(cluster, &format!("{RBAC}/namespaces/{namespace}/roles"), role).await;
    let mut binding = meta("RoleBinding");
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": who});
    binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": who}]);
    made(cluster, &format!("{RBAC}/namespaces/{namespace}/rolebindings"), binding).await;
    // Authorization reads the watch cache: a consistent list waits for it.
    assert_eq!(cluster.admin(Method::GET, &format!("{RBAC}/namespaces/{namespace}/rolebindings"), Value::Null).await.0, 200);
}

fn tls(cluster: &Cluster, identity: Option<&Issued>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.keys.server_ca.certificate_pem.as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn connect(cluster: &Cluster, identity: Option<&Issued>) -> Tls {
    let tcp = tokio::net::TcpStream::connect(cluster.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls(cluster, identity)));
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

/// Reads the status of the next answer on a raw connection.
async fn status_of(stream: &mut Tls) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time").unwrap();
        head.push(byte);
    }
    String::from_utf8_lossy(&head).split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_01_namespaced_paths_lead_to_no_cluster_scoped_resource() {
    let cluster = Cluster::start().await;
    for name in ["foo", "victim"] {
        made(&cluster, "/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
    }
    made(&cluster, "/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).await;
    grant(&cluster, "foo", "mallory", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])).await;

    assert_eq!(get(&cluster, "mallory", "/api/v1/nodes").await, 403);
    for path in ["nodes", "nodes/n1", "nodes/n1/status", "nodes/n1/proxy/pods", "namespaces", "namespaces/victim", "persistentvolumes"] {
        assert_eq!(get(&cluster, "mallory", &format!("/api/v1/namespaces/foo/{path}")).await, 404, "{path}");
        assert_eq!(get(&cluster, "mallory", &format!("/api/v1/watch/namespaces/foo/{path}")).await, 404, "watch {path}");
    }
    let cluster_roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/foo/clusterroles";
    assert_eq!(get(&cluster, "mallory", cluster_roles).await, 404);
    let (code, _) = ask(&cluster, "mallory", Method::DELETE, "/api/v1/namespaces/foo/namespaces/victim", Value::Null).await;
    assert_eq!((code, cluster.admin(Method::GET, "/api/v1/namespaces/victim", Value::Null).await.0), (404, 200));
    let evil = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}});
    let (code, answer) = ask(&cluster, "mallory", Method::POST, "/api/v1/namespaces/foo", evil).await;
    assert_eq!((code, cluster.admin(Method::GET, "/api/v1/namespaces/evil", Value::Null).await.0), (405, 404), "{answer}");

    // The other way round: a namespaced object has no path without its namespace, and a collection of all namespaces is only read.
    assert_eq!(cluster.admin(Method::GET, "/api/v1/configmaps/x", Value::Null).await.0, 404);
    for method in [Method::POST, Method::DELETE, Method::PUT] {
        assert_eq!(cluster.admin(method.clone(), "/api/v1/configmaps", map("x")).await.0, 405, "{method}");
    }
    assert_eq!(get(&cluster, "mallory", "/api/v1/namespaces/foo").await, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_02_a_repeated_parameter_counts_once_and_the_same_everywhere() {
    let cluster = Cluster::start().await;
    for name in ["allowed", "other"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        made(&cluster, "/api/v1/namespaces/default/secrets", secret).await;
    }
    let rule = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"], "resourceNames": ["allowed"]}]);
    grant(&cluster, "default", "carol", rule).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for query in [
        "fieldSelector=metadata.name%3Dallowed&fieldSelector=",
        "fieldSelector=metadata.name%3Dallowed&fieldSelector=metadata.name%3Dother",
    ] {
        let (code, list) = ask(&cluster, "carol", Method::GET, &format!("{secrets}?{query}"), Value::Null).await;
        let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
        assert_eq!((code, names), (200, vec![json!("allowed")]), "{query}");
    }
    for query in
        ["fieldSelector=&fieldSelector=metadata.name%3Dallowed", "fieldSelector=type%3Da%5C,metadata.name%3Dallowed", "watch=0&watch=1", ""]
    {
        assert_eq!(get(&cluster, "carol", &format!("{secrets}?{query}")).await, 403, "{query}");
    }
    // A node with its own certificate sees its own pods, not all.
    let node = Caller { user: UserInfo::new("system:node:n1", &["system:nodes", "system:authenticated"]), fence: None };
    let pods = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&fieldSelector=";
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
    };
    made(&cluster, "/api/v1/namespaces/default/pods", pod("mine", "n1")).await;
    made(&cluster, "/api/v1/namespaces/default/pods", pod("theirs", "n2")).await;
    let request = Request::builder().uri(pods).body(Bytes::new()).unwrap();
    let (code, list) = read(cluster.api.call(node, request).await).await;
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
    assert_eq!((code, names), (200, vec![json!("mine")]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_04_strangers_make_no_metric_series() {
    let cluster = Cluster::start().await;
    let series = async || {
        let (_, text) = cluster.admin(Method::GET, "/metrics", Value::Null).await;
        text.as_str().unwrap().lines().filter(|line| line.starts_with("apiserver_request_")).count()
    };
    let stranger = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Bytes::new()).unwrap();
        cluster.api.handle(request)
    };
    let paths = |n: usize| {
        [
            ("GET", format!("/apis/g{n}.x/v{n}/r{n}")),
            ("GET", format!("/api/v1/r{n}")),
            ("GET", format!("/api/v1/namespaces/a/pods/p/s{n}")),
            ("GET", format!("/api/v{n}/namespaces/a/pods")),
            ("X", format!("/x{n}")),
        ]
    };
    for (method, path) in paths(0) {
        assert_eq!(stranger(method, &path).await.status(), 401);
    }
    // The first requests may make the series that all others then share; so does the first look.
    series().await;
    for n in 1..20 {
        for (method, path) in paths(n) {
            stranger(method, &path).await;
            stranger(&format!("M{n}"), &path).await;
        }
    }
    let settled = series().await;
    for n in 20..70 {
        for (method, path) in paths(n) {
            stranger(method, &path).await;
            stranger(&format!("M{n}"), &path).await;
        }
    }
    assert_eq!(series().await, settled, "more requests, more series");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_05_bodies_of_strangers_are_not_read_and_stop_nobody() {
    let cluster = Cluster::start().await;
    let flood = format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 3145728\r\n\r\n");
    // More than all bodies together may take; each holds its connection with a part of a body.
    let mut strangers = Vec::new();
    for _ in 0..60 {
        let mut stream = connect(&cluster, None).await;
        stream.write_all(flood.as_bytes()).await.unwrap();
        let _ = stream.write_all(&vec![b'x'; 200_000]).await;
        strangers.push(stream);
    }
    let admin = cluster.issue(&Profile::Admin);
    let mut client = connect(&cluster, Some(&admin)).await;
    let body = map("m").to_string();
    let request =
        format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_of(&mut client).await, 201);
    for stream in &mut strangers {
        assert_eq!(status_of(stream).await, 401, "refused before the body has come");
    }
    // The same for a user who may not: 403 comes before the body.
    let proxy = cluster.issue(&Profile::KubeProxy);
    let mut other = connect(&cluster, Some(&proxy)).await;
    other.write_all(flood.as_bytes()).await.unwrap();
    assert_eq!(status_of(&mut other).await, 403);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_08_every_number_of_a_client_is_survived() {
    let cluster = Cluster::start().await;
    let numbers = ["9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616", "-1", "0", "1e9", "", "x"];
    for number in numbers {
        for query in [
            format!("watch=1&timeoutSeconds={number}"),
            format!("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1&timeoutSeconds={number}"),
        ] {
            let response = cluster.send(Method::GET, &format!("{MAPS}?{query}"), Value::Null, &[]).await;
            let status = response.status().as_u16();
            assert!(matches!(status, 200 | 400), "{query}: {status}");
            if status == 200 {
                let mut body = response.into_body();
                // The first piece is made by the watcher: it must not fail.
                let _ = tokio::time::timeout(std::time::Duration::from_millis(200), body.frame()).await;
            }
        }
        for query in ["limit", "resourceVersion", "timeoutSeconds", "timeout"].map(|name| format!("{name}={number}")) {
            let (code, answer) = cluster.admin(Method::GET, &format!("{MAPS}?{query}"), Value::Null).await;
            assert!(matches!(code, 200 | 400 | 504), "{query}: {answer}");
        }
        made(
            &cluster,
            "/api/v1/namespaces/default/pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}),
        )
        .await;
        let target = format!("/api/v1/namespaces/default/pods/p?gracePeriodSeconds={number}");
        let (code, answer) = cluster.admin(Method::DELETE, &target, Value::Null).await;
        assert!(matches!(code, 200 | 400 | 422), "{target}: {code} {answer}");
        let (code, _) = cluster.admin(Method::DELETE, "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0", Value::Null).await;
        assert!(matches!(code, 200 | 404), "{number}: {code}");
    }
    for token in [
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTIyMzM3MjAzNjg1NDc3NTgwNywic3RhcnQiOiJhIn0",
        "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTkyMjMzNzIwMzY4NTQ3NzU4MDgsInN0YXJ0IjoiYSJ9",
    ] {
        let (code, answer) = cluster.admin(Method::GET, &format!("{MAPS}?limit=1&continue={token}"), Value::Null).await;
        assert!(matches!(code, 200 | 400 | 410 | 504), "{token}: {answer}");
    }
    assert_eq!(cluster.admin(Method::GET, "/readyz", Value::Null).await.0, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_11_a_put_that_creates_needs_create() {
    let cluster = Cluster::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "new"}, "spec": {"ports": [{"port": 80}]}});
    grant(&cluster, "default", "dan", json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["update"]}])).await;
    let (code, answer) = ask(&cluster, "dan", Method::PUT, &format!("{services}/new"), service.clone()).await;
    assert_eq!(code, 403, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("cannot create resource \"services\""), "{answer}");
    grant(&cluster, "default", "eve", json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["update", "create"]}])).await;
    let (code, answer) = ask(&cluster, "eve", Method::PUT, &format!("{services}/new"), service).await;
    assert_eq!(code, 201, "{answer}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_14_deletecollection_deletes_one_page() {
    let cluster = Cluster::start().await;
    for name in ["d1", "d2", "d3", "d4"] {
        let mut map = map(name);
        map["metadata"]["labels"] = json!({"a": "b"});
        made(&cluster, MAPS, map).await;
    }
    let target = format!("{MAPS}?labelSelector=a%3Db&limit=1");
    let (code, page) = cluster.admin(Method::DELETE, &target, Value::Null).await;
    assert_eq!((code, page["items"].as_array().unwrap().len()), (200, 1), "{page}");
    let left = async || {
        let (_, list) = cluster.admin(Method::GET, &format!("{MAPS}?labelSelector=a%3Db"), Value::Null).await;
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(left().await, 3);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (code, page) = cluster.admin(Method::DELETE, &format!("{target}&continue={token}"), Value::Null).await;
    assert_eq!((code, &page["items"][0]["metadata"]["name"], left().await), (200, &json!("d2"), 2), "{page}");
    let (code, _) = cluster.admin(Method::DELETE, &format!("{MAPS}?labelSelector=a%3Db"), Value::Null).await;
    assert_eq!((code, left().await), (200, 0));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_18_watchers_that_do_not_read_share_what_they_hold() {
    let cluster = Cluster::start().await;
    for n in 0..8 {
        let mut big = map(&format!("big{n}"));
        big["data"] = json!({"x": "y".repeat(500_000)});
        made(&cluster, MAPS, big).await;
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        assert_eq!(cluster.admin(Method::PATCH, &format!("{MAPS}/big{n}"), label).await.0, 200);
    }
    let before = rss();
    let mut watchers = Vec::new();
    for accept in ["application/json", "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v1;g=meta.k8s.io"] {
        for _ in 0..40 {
            let response = cluster.send(Method::GET, &format!("{MAPS}?watch=1"), Value::Null, &[("accept", accept)]).await;
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            // The stream has begun; nothing more is read.
            let first = tokio::time::timeout(PATIENCE, body.frame()).await.expect("a first event").unwrap().unwrap();
            drop(first);
            watchers.push(body);
        }
    }
    let grown = rss().saturating_sub(before);
    // Queued and encoded, they would hold 120 × 4 MB.
    assert!(grown < 100 << 20, "120 watchers hold {} MiB", grown >> 20);
    // Those who read get everything.
    let response = cluster.send(Method::GET, &format!("{MAPS}?watch=1&labelSelector=a%3Db"), Value::Null, &[]).await;
    let mut events = Events::new(response);
    for n in 0..8 {
        assert_eq!(events.named().await, ("ADDED".to_owned(), format!("big{n}")));
    }
    drop(watchers);
    cluster.stop().await;
}

/// Resident memory of this process, in bytes.
fn rss() -> usize {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn security_20_a_rule_for_the_name_star_grants_no_other_name() {
    let cluster = Cluster::start().await;
    let rules = json!([
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["*"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]},
    ]);
    grant(&cluster, "default", "dave", rules).await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["db"]}]});
    let (code, answer) = ask(&cluster, "dave", Method::POST, &format!("{RBAC}/namespaces/default/roles"), role).await;
    assert_eq!(code, 403, "{answer}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_54_odd_paths_are_answered_and_the_connection_goes_on() {
    let cluster = Cluster::start().await;
    made(&cluster, MAPS, map("a.b")).await;
    let admin = cluster.issue(&Profile::Admin);
    let stream = connect(&cluster, Some(&admin)).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let object = "/api/v1/namespaces/default/configmaps/a.b";
    for (want, method, path) in [
        (404, "GET", "//version".to_owned()),
        (404, "GET", format!("/{object}")),
        (404, "GET", "/api/v1//namespaces/default/configmaps/a.b".to_owned()),
        (404, "GET", "/api/v1/namespaces//configmaps".to_owned()),
        (200, "GET", "/api/v1/namespaces/default/configmaps/a%2Eb".to_owned()),
        (200, "GET", "/version/".to_owned()),
        (404, "GET", "/api/v1/../../version".to_owned()),
        (404, "GET", "/api/v1/namespaces/default/nothings".to_owned()),
        (404, "GET", "/apis/nothing.example.test/v1".to_owned()),
        (404, "GET", format!("{object}/status")),
        (405, "PUT", MAPS.to_owned()),
        (405, "POST", object.to_owned()),
        (405, "OPTIONS", object.to_owned()),
        (400, "GET", "/api/v1/namespaces/default/configmaps/a%zz".to_owned()),
        (200, "HEAD", object.to_owned()),
        (200, "GET", object.to_owned()),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(&path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(if matches!(method, "PUT" | "POST") { b"{}" } else { b"" })))
            .unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), want, "{method} {path}");
        response.into_body().collect().await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_a_review_has_no_table() {
    let cluster = Cluster::start().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}});
    let target = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let send = async |accept: &str| cluster.send(Method::POST, target, review.clone(), &[("accept", accept)]).await.status().as_u16();
    assert_eq!(send("application/json;as=Table;v=v1;g=meta.k8s.io").await, 406);
    assert_eq!(send("application/json;as=Table;v=v1;g=meta.k8s.io, application/json").await, 201);
    cluster.stop().await;
}
