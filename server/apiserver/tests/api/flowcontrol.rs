//! Priority and fairness: whose requests run while another user floods the server, what answers and objects say about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use trireme_apiserver::Body;
use trireme_apiserver::authn::Peer;
use trireme_cluster::pki::Profile;

use crate::support::{Cluster, PATIENCE, read};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
/// A list that is answered when the server gives up to reach the revision, after seconds.
const SLOW: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=900000000";
const FAST: &str = "/api/v1/namespaces/default/configmaps";

/// A client that comes from the network.
struct Client {
    cluster: Cluster,
    peer: Arc<Peer>,
}

impl Client {
    fn new(cluster: Cluster) -> Client {
        let issued = cluster.issue(&Profile::Admin);
        let peer = cluster.api.peer(&[CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()]);
        Client { cluster, peer: Arc::new(peer) }
    }

    /// A request of the administrator, as another user if one is named.
    async fn send(&self, user: &str, target: &str) -> Response<Body> {
        let mut request = Request::builder().uri(target);
        if !user.is_empty() {
            request = request.header("impersonate-user", user);
        }
        let mut request = request.body(Bytes::new()).unwrap();
        request.extensions_mut().insert(self.peer.clone());
        self.cluster.api.handle(request).await
    }

    async fn admin(&self, method: Method, target: &str, body: Value) -> Value {
        let (code, answer) = self.cluster.admin(method, target, body).await;
        assert!(code < 300, "{code} {answer}");
        answer
    }

    /// Waits until answers to a user name a schema.
    async fn classified(&self, user: &str, uid: &Value) {
        let since = Instant::now();
        while header(&self.send(user, "/version").await, "x-kubernetes-pf-flowschema-uid") != uid.as_str() {
            assert!(since.elapsed() < PATIENCE, "{user} is not classified");
            tokio::task::yield_now().await;
        }
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

fn schema(name: &str, level: &str, users: &[&str]) -> Value {
    let subjects: Vec<Value> = users.iter().map(|user| json!({"kind": "User", "user": {"name": user}})).collect();
    let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name}, "spec": {
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 50, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": subjects, "resourceRules": [everything],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}],
    }})
}

fn level(name: &str, shares: u32, queues: Value) -> Value {
    let response = if queues.is_null() { json!({"type": "Reject"}) } else { json!({"type": "Queue", "queuing": queues}) };
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "limitResponse": response}}})
}

/// Lets the users read config maps.
async fn allow(client: &Client, users: &[&str]) {
    let subjects: Vec<Value> =
        users.iter().map(|user| json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"})).collect();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": subjects});
    client.admin(Method::POST, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    let since = Instant::now();
    while client.send(users[0], FAST).await.status() != 200 {
        assert!(since.elapsed() < PATIENCE, "the binding is not seen");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_users_flood_does_not_stop_another_user() {
    let small = |options: &mut trireme_apiserver::ApiServerOptions| {
        (options.max_requests_inflight, options.max_mutating_requests_inflight) = (5, 5);
    };
    let client = Arc::new(Client::new(Cluster::start_on("127.0.0.1:0", |options, _| small(options)).await));
    let queues = json!({"queues": 32, "handSize": 3, "queueLengthLimit": 10});
    client.admin(Method::POST, &format!("{GROUP}/prioritylevelconfigurations"), level("small", 60, queues)).await;
    let made = client.admin(Method::POST, &format!("{GROUP}/flowschemas"), schema("small", "small", &["elephant", "mouse"])).await;
    allow(&client, &["mouse", "elephant"]).await;
    client.classified("mouse", &made["metadata"]["uid"]).await;

    let flood: Vec<_> = (0..80)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let response = client.send("elephant", SLOW).await;
                (response.status().as_u16(), header(&response, "retry-after").map(str::to_owned), read(response).await.1)
            })
        })
        .collect();
    let table = async || read(client.send("", "/debug/api_priority_and_fairness/dump_priority_levels").await).await.1;
    let waiting = |table: &Value| {
        let line = table.as_str().unwrap().lines().find(|line| line.starts_with("small,")).unwrap().to_owned();
        line.split(", ").nth(3).unwrap().parse::<usize>().unwrap()
    };
    let since = Instant::now();
    while waiting(&table().await) < 25 {
        assert!(since.elapsed() < PATIENCE, "the flood does not wait: {}", table().await);
        tokio::task::yield_now().await;
    }
    // The elephant's queues are full, and each of its requests has a seat for three seconds.
    for _ in 0..2 {
        let since = Instant::now();
        assert_eq!(client.send("mouse", FAST).await.status(), 200);
        assert!(since.elapsed() < Duration::from_secs(8), "the mouse waited {:?} behind the elephant", since.elapsed());
    }
    assert_eq!(client.send("", FAST).await.status(), 200, "an administrator is exempt");
    assert!(waiting(&table().await) > 0, "the elephant's requests still wait");

    let (mut refused, mut served) = (0, 0);
    for one in flood {
        let (code, retry, answer) = one.await.unwrap();
        match code {
            429 => {
                refused += 1;
                assert_eq!(
                    (retry.as_deref(), &answer["reason"], &answer["kind"]),
                    (Some("1"), &json!("TooManyRequests"), &json!("Status"))
                );
            }
            504 => served += 1,
            other => panic!("{other} {answer}"),
        }
    }
    assert!(refused >= 30 && served >= 3, "{refused} refused, {served} served");
    let metrics = read(client.send("", "/metrics").await).await.1;
    let metrics = metrics.as_str().unwrap();
    for reason in ["queue-full", "time-out"] {
        let series =
            format!(r#"apiserver_flowcontrol_rejected_requests_total{{flow_schema="small",priority_level="small",reason="{reason}"}} "#);
        let value: u64 = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap();
        assert!(value > 0, "{reason}");
    }
    for gauge in ["current_executing_requests", "current_inqueue_requests", "current_executing_seats"] {
        let line = format!(r#"apiserver_flowcontrol_{gauge}{{flow_schema="small",priority_level="small"}} 0"#);
        assert!(metrics.contains(&line), "{line}: nothing is left");
    }
    Arc::into_inner(client).unwrap().cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_name_their_schema_and_level() {
    let client = Client::new(Cluster::start().await);
    let uid = async |path: &str| client.admin(Method::GET, &format!("{GROUP}/{path}"), Value::Null).await["metadata"]["uid"].clone();
    for (user, target, code, schema, level) in [
        ("", FAST, 200, "exempt", "exempt"),
        ("alice", FAST, 403, "global-default", "global-default"),
        ("alice", "/healthz", 200, "probes", "exempt"),
        ("system:kube-scheduler", "/api/v1/pods", 200, "kube-scheduler", "workload-high"),
        ("system:serviceaccount:default:x", "/api/v1/nothing", 403, "service-accounts", "workload-low"),
    ] {
        client
            .classified(
                user,
                &if target == "/healthz" { uid("flowschemas/global-default").await } else { uid(&format!("flowschemas/{schema}")).await },
            )
            .await;
        let response = client.send(user, target).await;
        let expected = [uid(&format!("flowschemas/{schema}")).await, uid(&format!("prioritylevelconfigurations/{level}")).await];
        let named = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"].map(|name| json!(header(&response, name)));
        assert_eq!((response.status().as_u16(), named), (code, expected), "{user} {target}");
    }
    client.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_holds_no_seat_and_a_level_without_queues_refuses() {
    let small = |options: &mut trireme_apiserver::ApiServerOptions| {
        (options.max_requests_inflight, options.max_mutating_requests_inflight) = (1, 1);
    };
    let client = Client::new(Cluster::start_on("127.0.0.1:0", |options, _| small(options)).await);
    client.admin(Method::POST, &format!("{GROUP}/prioritylevelconfigurations"), level("one", 1, Value::Null)).await;
    let made = client.admin(Method::POST, &format!("{GROUP}/flowschemas"), schema("one", "one", &["alice"])).await;
    allow(&client, &["alice"]).await;
    client.classified("alice", &made["metadata"]["uid"]).await;
    // Its level has one seat.
    let mut watches = Vec::new();
    for _ in 0..20 {
        let watch = client.send("alice", &format!("{FAST}?watch=1")).await;
        assert_eq!(watch.status(), 200);
        watches.push(watch);
    }
    let slow = client.send("alice", SLOW);
    let fast = async {
        let since = Instant::now();
        while client.send("alice", FAST).await.status() != 429 {
            assert!(since.elapsed() < PATIENCE, "the slow request has the only seat");
            tokio::task::yield_now().await;
        }
    };
    let (slow, ()) = tokio::join!(slow, fast);
    assert_eq!(slow.status(), 504);
    assert_eq!(client.send("alice", FAST).await.status(), 200, "and gives it back");
    drop(watches);
    client.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_without_its_level_dangles_and_mandatory_objects_come_back() {
    let cluster = Cluster::start().await;
    let path = format!("{GROUP}/flowschemas");
    let dangling = async |name: &str, status: &str, message: &str| {
        let since = Instant::now();
        loop {
            let (_, schema) = cluster.admin(Method::GET, &format!("{path}/{name}"), Value::Null).await;
            let condition = &schema["status"]["conditions"][0];
            if condition["status"] == status {
                assert_eq!((&condition["type"], condition["message"].as_str()), (&json!("Dangling"), Some(message)));
                return schema;
            }
            assert!(since.elapsed() < PATIENCE, "{schema}");
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(cluster.admin(Method::POST, &path, schema("stray", "missing", &["alice"])).await.0, 201);
    let reference = "This FlowSchema references the PriorityLevelConfiguration object named \"missing\"";
    dangling("stray", "True", &format!("{reference} but there is no such object")).await;
    let levels = format!("{GROUP}/prioritylevelconfigurations");
    assert_eq!(cluster.admin(Method::POST, &levels, level("missing", 10, Value::Null)).await.0, 201);
    dangling("stray", "False", &format!("{reference} and it exists")).await;

    let found = "This FlowSchema references the PriorityLevelConfiguration object named \"catch-all\" and it exists";
    let before = dangling("catch-all", "False", found).await;
    assert_eq!(cluster.admin(Method::DELETE, &format!("{path}/catch-all"), Value::Null).await.0, 200);
    let since = Instant::now();
    loop {
        let (code, now) = cluster.admin(Method::GET, &format!("{path}/catch-all"), Value::Null).await;
        if code == 200 && now["metadata"]["uid"] != before["metadata"]["uid"] {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{now}");
        tokio::task::yield_now().await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_priority_and_fairness_there_are_fixed_limits() {
    let change = |options: &mut trireme_apiserver::ApiServerOptions| {
        options.priority_and_fairness = false;
        options.max_requests_inflight = 1;
    };
    let client = Client::new(Cluster::start_on("127.0.0.1:0", |options, _| change(options)).await);
    allow(&client, &["alice"]).await;
    let slow = client.send("alice", SLOW);
    let fast = async {
        let since = Instant::now();
        loop {
            let response = client.send("alice", FAST).await;
            assert_eq!(header(&response, "x-kubernetes-pf-flowschema-uid"), None);
            if response.status() == 429 {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "the slow request has the only place");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(slow, fast);
    client.cluster.stop().await;
}
