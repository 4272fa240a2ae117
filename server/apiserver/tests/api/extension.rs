//! API aggregation: a group version that another server answers.

use std::sync::Arc;

use base64::Engine as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request};
use rustls::client::ResolvesClientCert;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use trireme_apiserver::egress::{Egress, Place, Stream};
use trireme_apiserver::{Caller, UserInfo};
use trireme_cluster::pki::{ClusterKeys, Profile};

use crate::support::extension::{ExtensionServer, serve};
use crate::support::{Cluster, PATIENCE, read};

const GROUP: &str = "/apis/wardle.example.com";
const VERSION: &str = "/apis/wardle.example.com/v1alpha1";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Connects to this machine, whatever the address.
struct Here;

impl Egress for Here {
    fn connect(&self, _host: &str, port: u16, _place: &Place) -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> {
        async move { Ok(Box::new(TcpStream::connect(("127.0.0.1", port)).await?) as Box<dyn Stream>) }.boxed()
    }
}

fn identity(keys: &ClusterKeys) -> Arc<dyn ResolvesClientCert> {
    let issued = Profile::FrontProxyClient.issue(keys, jiff::Timestamp::now()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    config.with_client_auth_cert(chain, key).unwrap().client_auth_cert_resolver.clone()
}

/// A cluster with the Service of an extension server, and its endpoint.
async fn cluster() -> (Cluster, ExtensionServer) {
    let cluster = Cluster::start_on("127.0.0.1:0", |options, keys| {
        options.egress = Arc::new(Here);
        options.aggregator_identity = Some(identity(keys));
    })
    .await;
    let server = serve(&cluster.keys, "wardle.default.svc").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "wardle"}, "spec": {"ports": [{"port": 7443}]}});
    assert_eq!(cluster.admin(Method::POST, "/api/v1/namespaces/default/services", service).await.0, 201);
    endpoint(&cluster, server.port).await;
    (cluster, server)
}

async fn endpoint(cluster: &Cluster, port: u16) {
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "wardle", "labels": {"kubernetes.io/service-name": "wardle"}},
        "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"name": "", "port": port}]});
    let (code, answer) = cluster.admin(Method::POST, SLICES, slice).await;
    assert_eq!(code, 201, "{answer}");
}

fn api_service(ca: &str) -> Value {
    let bundle = base64::engine::general_purpose::STANDARD.encode(ca);
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": {
        "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": bundle,
        "service": {"namespace": "default", "name": "wardle", "port": 7443}}})
}

async fn register(cluster: &Cluster, object: Value) {
    let (code, answer) = cluster.admin(Method::POST, SERVICES, object).await;
    assert_eq!(code, 201, "{answer}");
    assert!(answer["metadata"].is_object());
}

/// Waits until the APIService has this status and reason, and gives the message.
async fn available(cluster: &Cluster, status: &str, reason: &str) -> String {
    let mut last = Value::Null;
    let reached = tokio::time::timeout(PATIENCE, async {
        loop {
            let (_, found) = cluster.admin(Method::GET, &format!("{SERVICES}/v1alpha1.wardle.example.com"), Value::Null).await;
            last = found["status"]["conditions"][0].clone();
            if last["type"] == "Available" && last["status"] == status && last["reason"] == reason {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let met = reached.await.is_ok();
    assert!(met, "wanted {status} {reason}, got {last}");
    last["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_server_answers_its_group_as_the_user_who_asks() {
    let (cluster, server) = cluster().await;
    let get = async |path: &str| cluster.admin(Method::GET, path, Value::Null).await;
    assert_eq!(get(VERSION).await.0, 404);
    register(&cluster, api_service(&server.ca)).await;
    assert_eq!(available(&cluster, "True", "Passed").await, "all checks passed");

    let (code, answer) = get(&format!("{VERSION}/namespaces/default/flunders?limit=5&labelSelector=a%3Db")).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["asked"], format!("GET {VERSION}/namespaces/default/flunders?limit=5&labelSelector=a%3Db"));
    assert_eq!((&answer["user"], &answer["groups"]), (&json!(["admin"]), &json!(["system:masters", "system:authenticated"])));

    let forged = [("x-remote-user", "root"), ("x-remote-group", "wheel"), ("content-type", "application/json")];
    let answer = cluster.send(Method::POST, &format!("{VERSION}/namespaces/a%20b/flunders"), json!({"kind": "Flunder"}), &forged).await;
    let (code, answer) = read(answer).await;
    assert_eq!((code, &answer["user"], &answer["body"]), (200, &json!(["admin"]), &json!({"kind": "Flunder"})));
    assert_eq!(answer["asked"], format!("POST {VERSION}/namespaces/a%20b/flunders"), "the path is encoded again");

    // Who may not ask here does not get there.
    let nobody = Caller { user: UserInfo::new("nobody", &["system:authenticated"]), fence: None };
    let request = Request::get(format!("{VERSION}/namespaces/default/flunders")).body(bytes::Bytes::new()).unwrap();
    assert_eq!(cluster.api.call(nobody, request).await.status(), 403);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_openapi_have_the_groups_of_extension_servers() {
    let (cluster, server) = cluster().await;
    register(&cluster, api_service(&server.ca)).await;
    available(&cluster, "True", "Passed").await;
    let get = async |path: &str| cluster.admin(Method::GET, path, Value::Null).await;

    let (_, list) = get("/apis").await;
    let names: Vec<&str> = list["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert!(names.ends_with(&["wardle.example.com", "metrics.k8s.io"]), "{names:?}");
    let (code, group) = get(GROUP).await;
    assert_eq!((code, &group["preferredVersion"]["version"]), (200, &json!("v1alpha1")));
    let (code, resources) = get(VERSION).await;
    assert_eq!((code, &resources["resources"][0]["name"]), (200, &json!("flunders")));

    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let (_, aggregated) = read(cluster.send(Method::GET, "/apis", Value::Null, &accept).await).await;
    let items = aggregated["items"].as_array().unwrap();
    let item = items.iter().find(|item| item["metadata"]["name"] == "wardle.example.com").unwrap();
    assert_eq!(item["versions"][0]["freshness"], "Current");
    assert_eq!(item["versions"][0]["resources"][0]["responseKind"]["kind"], "Flunder");

    let (_, index) = get("/openapi/v3").await;
    let address = index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, document) = get(&address).await;
    assert_eq!((code, &document["asked"]), (200, &json!("GET /openapi/v3/apis/wardle.example.com/v1alpha1?hash=7")));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_service_says_why_its_server_cannot_be_reached() {
    let (cluster, server) = cluster().await;
    let path = format!("{SERVICES}/v1alpha1.wardle.example.com");
    let get = async |path: &str| cluster.admin(Method::GET, path, Value::Null).await;
    // Another authority than the one that signed the server's certificate.
    register(&cluster, api_service(&cluster.keys.peer_ca.certificate_pem)).await;
    let message = available(&cluster, "False", "FailedDiscoveryCheck").await;
    assert!(message.starts_with("failing or missing response from https://wardle.default.svc:7443"), "{message}");
    let (code, answer) = get(&format!("{VERSION}/flunders")).await;
    assert_eq!((code, &answer["message"]), (503, &json!("service unavailable")));

    let patch = json!({"spec": {"caBundle": api_service(&server.ca)["spec"]["caBundle"]}});
    assert_eq!(cluster.admin(Method::PATCH, &path, patch).await.0, 200);
    available(&cluster, "True", "Passed").await;

    assert_eq!(cluster.admin(Method::DELETE, &format!("{SLICES}/wardle"), Value::Null).await.0, 200);
    let message = available(&cluster, "False", "MissingEndpoints").await;
    assert_eq!(message, "endpoints for service/wardle in \"default\" have no addresses with port name \"\"");
    endpoint(&cluster, server.port).await;
    available(&cluster, "True", "Passed").await;

    let patch = json!({"spec": {"service": {"port": 7}}});
    assert_eq!(cluster.admin(Method::PATCH, &path, patch).await.0, 200);
    let message = available(&cluster, "False", "ServicePortError").await;
    assert_eq!(message, "service/wardle in \"default\" is not listening on port 7");
    let patch = json!({"spec": {"service": {"name": "none"}}});
    assert_eq!(cluster.admin(Method::PATCH, &path, patch).await.0, 200);
    available(&cluster, "False", "ServiceNotFound").await;

    let (_, deleted) = cluster.admin(Method::DELETE, &path, Value::Null).await;
    assert!(deleted.is_object());
    assert_eq!(get(&path).await.0, 404, "a consistent read: the cache has seen the deletion");
    assert_eq!(get(&format!("{VERSION}/flunders")).await.0, 404);
    let (_, list) = get("/apis").await;
    assert!(list["groups"].as_array().unwrap().iter().all(|group| group["name"] != "wardle.example.com"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_extension_server_takes_a_group_that_is_built_in() {
    let (cluster, server) = cluster().await;
    let mut object = api_service(&server.ca);
    object["metadata"]["name"] = json!("v1.apps");
    object["spec"]["group"] = json!("apps");
    object["spec"]["version"] = json!("v1");
    register(&cluster, object).await;
    let (code, answer) = cluster.admin(Method::GET, "/apis/apps/v1/namespaces/default/deployments", Value::Null).await;
    assert_eq!((code, &answer["kind"]), (200, &json!("DeploymentList")));
    let (_, list) = cluster.admin(Method::GET, "/apis", Value::Null).await;
    assert_eq!(list["groups"].as_array().unwrap().iter().filter(|group| group["name"] == "apps").count(), 1);
    cluster.stop().await;
}
