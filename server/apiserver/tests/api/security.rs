//! Strangers, users, nodes and pods as clients: over real TLS, through the whole filter chain.

use std::sync::Arc;

use crate::support::{Cluster, read};
use bytes::Bytes;
use http::{Method, Request};
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trireme_apiserver::Caller;
use trireme_apiserver::UserInfo;
use trireme_apiserver::authn::Peer;
use trireme_cluster::pki::{ClusterKeys, Issued, Profile};

/// One HTTP/1.1 request over TLS with (or without) a client certificate. Code and body.
async fn over_tls(cluster: &Cluster, certificate: Option<&Issued>, path: &str) -> (u16, String) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.keys.server_ca.certificate_pem.as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = tokio::net::TcpStream::connect(cluster.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes without close_notify has answered all the same.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (code, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_certificates_get_a_status_and_strangers_get_health_and_version() {
    let cluster = Cluster::start().await;
    let now = Timestamp::now();
    let long_ago = Timestamp::from_second(now.as_second() - 800 * 86_400).unwrap();
    let admin = cluster.issue(&Profile::Admin);
    let expired = Profile::Admin.issue(&cluster.keys, long_ago).unwrap();
    let foreign = Profile::Admin.issue(&ClusterKeys::generate(now).unwrap(), now).unwrap();
    let peer = cluster.issue(&Profile::Peer { member_name: "x".into(), addresses: vec![] });
    for path in ["/livez", "/readyz", "/healthz", "/version"] {
        let (code, body) = over_tls(&cluster, None, path).await;
        assert_eq!(code, 200, "{path}: {body}");
    }
    for (who, certificate, path, expected) in [
        ("nobody", None, "/api", 401),
        ("nobody", None, "/apis/apps/v1", 401),
        ("nobody", None, "/metrics", 401),
        ("expired", Some(&expired), "/livez", 401),
        ("foreign", Some(&foreign), "/api", 401),
        ("a raft peer", Some(&peer), "/api", 401),
        ("admin", Some(&admin), "/api/v1/namespaces", 200),
    ] {
        let (code, body) = over_tls(&cluster, certificate, path).await;
        assert_eq!(code, expected, "{who} {path}: {body}");
        if expected == 401 {
            let status: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&status["kind"], &status["message"]), (&json!("Status"), &json!("Unauthorized")));
        }
    }
    cluster.stop().await;
}

/// A request through every filter, as the holder of a certificate of this kind or of a bearer token.
async fn ask(cluster: &Cluster, who: &Profile, token: Option<&str>, method: Method, path: &str, body: Value) -> (u16, Value) {
    let peer = match token {
        Some(_) => Peer::None,
        None => {
            let issued = cluster.issue(who);
            cluster.api.peer(&[CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()])
        }
    };
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let mut request = request.body(bytes).unwrap();
    request.extensions_mut().insert(Arc::new(peer));
    read(cluster.api.handle(request).await).await
}

/// Identity and authorization read the watch cache, which follows a write within a moment: a consistent list waits for it.
async fn caught_up(cluster: &Cluster, collection: &str) {
    assert_eq!(cluster.admin(Method::GET, collection, Value::Null).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_its_pods_token_reach_what_is_theirs() {
    let cluster = Cluster::start().await;
    let post = async |path: &str, body: Value| {
        let (code, answer) = cluster.admin(Method::POST, path, body).await;
        assert_eq!(code, 201, "{path}: {answer}");
        answer
    };
    let node = Profile::KubeletClient { node_name: "n1".into() };
    let kubelet = async |method: Method, path: &str, body: Value| ask(&cluster, &node, None, method, path, body).await;
    let made = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let (code, answer) = kubelet(Method::POST, "/api/v1/nodes", made).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let other = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}});
    let (code, answer) = kubelet(Method::POST, "/api/v1/nodes", other).await;
    assert_eq!(
        (code, answer["message"].as_str()),
        (403, Some("nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""))
    );

    let namespace = "/api/v1/namespaces/default";
    for name in ["used", "unused"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        post(&format!("{namespace}/secrets"), secret).await;
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [
        {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}]}});
    let pod = post(&format!("{namespace}/pods"), pod).await;
    assert_eq!((&pod["spec"]["serviceAccountName"], &pod["spec"]["priority"]), (&json!("default"), &json!(0)));
    for (path, expected) in [("secrets/used", 200), ("secrets/unused", 403), ("secrets", 403), ("pods/p", 200), ("pods", 403)] {
        let (code, answer) = kubelet(Method::GET, &format!("{namespace}/{path}"), Value::Null).await;
        assert_eq!(code, expected, "{path}: {answer}");
    }
    let (_, refused) = kubelet(Method::GET, &format!("{namespace}/secrets/unused"), Value::Null).await;
    assert_eq!(
        refused["message"],
        "secrets \"unused\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"default\": no relationship found between node 'n1' and this object"
    );

    let bind = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3607,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let (code, answer) = kubelet(Method::POST, &format!("{namespace}/serviceaccounts/default/token"), bind).await;
    assert_eq!(code, 201, "{answer}");
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, answer) = ask(&cluster, &node, Some(&token), Method::POST, path, review.clone()).await;
    assert_eq!(code, 201, "{answer}");
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    let (code, _) = ask(&cluster, &node, Some(&token), Method::GET, &format!("{namespace}/secrets"), Value::Null).await;
    assert_eq!(code, 403);

    let gone = format!("{namespace}/pods/p?gracePeriodSeconds=0");
    assert_eq!(cluster.admin(Method::DELETE, &gone, Value::Null).await.0, 200);
    caught_up(&cluster, &format!("{namespace}/pods")).await;
    let (code, answer) = ask(&cluster, &node, Some(&token), Method::POST, path, review).await;
    assert_eq!(code, 401, "the token ends with its pod: {answer}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_are_checked_and_take_effect() {
    let cluster = Cluster::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let meta = |kind: &str, name: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    let mut role = meta("Role", "role-maker");
    role["rules"] = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create", "update"]},
                           {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    assert_eq!(cluster.admin(Method::POST, &format!("{rbac}/roles"), role).await.0, 201);
    let node = Profile::KubeProxy;
    let proxy = async |body: Value| ask(&cluster, &node, None, Method::POST, &format!("{rbac}/roles"), body).await;
    let mut wanted = meta("Role", "r");
    wanted["rules"] = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    assert_eq!(proxy(wanted.clone()).await.0, 403, "not bound yet");
    let mut binding = meta("RoleBinding", "b");
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "role-maker"});
    binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}]);
    let (code, answer) = cluster.admin(Method::POST, &format!("{rbac}/rolebindings"), binding).await;
    assert_eq!(code, 201, "{answer}");
    caught_up(&cluster, &format!("{rbac}/rolebindings")).await;
    let (code, answer) = proxy(wanted.clone()).await;
    assert_eq!(code, 201, "{answer}");
    wanted["metadata"]["name"] = json!("more");
    wanted["rules"][0]["verbs"] = json!(["get", "delete"]);
    let (code, answer) = proxy(wanted).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains(
            "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        ),
        "{message}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_enters_no_pod_and_is_no_operator() {
    let cluster = Cluster::start().await;
    cluster.api.add_operator_routes(Arc::new(trireme_cluster::admin::Members::new(cluster.store.clone())));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let post = async |path: String, body: Value| {
        let (code, answer) = cluster.admin(Method::POST, &path, body).await;
        assert_eq!(code, 201, "{path}: {answer}");
    };
    let verbs =
        |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["pods/exec", "pods/attach", "pods/portforward"], "verbs": verbs}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"}, "rules": verbs(&["get"])});
    post(format!("{rbac}/clusterroles"), role.clone()).await;
    post(
        format!("{rbac}/clusterrolebindings"),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}]}),
    )
    .await;
    caught_up(&cluster, &format!("{rbac}/clusterrolebindings")).await;
    let get = async |path: &str| ask(&cluster, &Profile::KubeProxy, None, Method::GET, path, Value::Null).await;
    for subresource in ["exec", "attach", "portforward"] {
        let (code, answer) = get(&format!("/api/v1/namespaces/default/pods/p/{subresource}")).await;
        let refusal = format!("cannot create resource \"pods/{subresource}\"");
        assert!(code == 403 && answer["message"].as_str().unwrap().contains(&refusal), "{code} {answer}");
    }
    let mut wider = role;
    wider["rules"] = verbs(&["get", "create"]);
    assert_eq!(cluster.admin(Method::PUT, &format!("{rbac}/clusterroles/reader"), wider).await.0, 200);
    caught_up(&cluster, &format!("{rbac}/clusterroles")).await;
    let (code, answer) = get("/api/v1/namespaces/default/pods/p/exec").await;
    assert_eq!(code, 404, "{answer}");

    // The operator's endpoints are for administrators, and say so.
    let (code, answer) = get("/trireme/v1/members").await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("cannot get path \"/trireme/v1/members\""), "{answer}");
    let (code, answer) = cluster.admin(Method::GET, "/trireme/v1/members", Value::Null).await;
    assert_eq!((code, &answer["members"][0]["role"]), (200, &json!("leader")), "{answer}");
    for (method, path, expected) in [
        (Method::GET, "/trireme/v1/nothing", 404),
        (Method::GET, "/trireme/v1/members/1/x", 404),
        (Method::PUT, "/trireme/v1/members", 405),
        (Method::DELETE, "/trireme/v1/members/one", 400),
        (Method::DELETE, "/trireme/v1/members/77", 409),
        (Method::DELETE, "/trireme/v1/members/1", 409),
        (Method::POST, "/trireme/v1/members/lead", 409),
    ] {
        let (code, answer) = cluster.admin(method, path, Value::Null).await;
        assert_eq!((code, &answer["kind"]), (expected, &json!("Status")), "{path}: {answer}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn why_a_server_is_not_ready_is_for_those_who_are_known() {
    let cluster = Cluster::start().await;
    cluster.api.stop();
    let stranger = Caller { user: UserInfo::new("system:anonymous", &["system:unauthenticated"]), fence: None };
    for (who, path, expected) in [
        (crate::support::admin(), "/readyz?verbose", "[-]shutdown failed: process is shutting down\n"),
        (crate::support::admin(), "/readyz", "[-]shutdown failed: reason withheld\n"),
        (stranger, "/readyz?verbose", "[-]shutdown failed: reason withheld\n"),
    ] {
        let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
        let (code, body) = crate::support::read(cluster.api.call(who, request).await).await;
        assert!(code == 500 && body.as_str().is_some_and(|text| text.contains(expected)), "{path}: {body}");
    }
    cluster.stop().await;
}
