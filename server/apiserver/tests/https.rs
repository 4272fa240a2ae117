//! The server from outside: identities, bad input, and the way through to a kubelet.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use support::Cluster;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use trireme_apiserver::pki::{ClusterKeys, Issued, Profile};

fn client_tls(ca_pem: &str, identity: Option<&Issued>) -> rustls::ClientConfig {
    support::log_to_stderr();
    let mut roots = rustls::RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(ca.unwrap()).unwrap();
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap()).unwrap()
        }
    }
}

struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(cluster: &Cluster, identity: Option<&Issued>) -> Client {
        let config = client_tls(&cluster.keys.server_ca.certificate_pem, identity);
        let tcp = TcpStream::connect(cluster.address).await.unwrap();
        let tls =
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client { sender }
    }

    async fn send(&mut self, method: Method, target: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_and_bad_input() {
    let cluster = Cluster::start().await;
    let mut nobody = Client::connect(&cluster, None).await;
    let (code, version) = nobody.send(Method::GET, "/version", "").await;
    assert_eq!((code, version["gitVersion"].as_str()), (200, Some("v1.36.2+trireme1")));
    assert_eq!(nobody.send(Method::GET, "/readyz", "").await, (200, json!("ok")));
    let (code, refused) = nobody.send(Method::GET, "/api/v1/namespaces", "").await;
    assert_eq!((code, refused["kind"].as_str(), refused["reason"].as_str()), (401, Some("Status"), Some("Unauthorized")));

    let foreign = ClusterKeys::generate(jiff::Timestamp::now()).unwrap();
    let stranger = Profile::Admin.issue(&foreign, jiff::Timestamp::now()).unwrap();
    let mut stranger = Client::connect(&cluster, Some(&stranger)).await;
    let (code, refused) = stranger.send(Method::GET, "/api/v1/namespaces", "").await;
    assert_eq!((code, refused["reason"].as_str()), (401, Some("Unauthorized")), "a foreign certificate is a Status, not a TLS alert");

    let node = cluster.issue(&Profile::KubeletClient { node_name: "n1".to_owned() });
    let mut node = Client::connect(&cluster, Some(&node)).await;
    let (code, refused) = node.send(Method::GET, "/api/v1/namespaces/kube-system/secrets", "").await;
    assert_eq!((code, refused["reason"].as_str()), (403, Some("Forbidden")), "{refused}");

    let admin = cluster.issue(&Profile::Admin);
    let mut admin = Client::connect(&cluster, Some(&admin)).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, method, target, body, want) in [
        ("no JSON", Method::POST, maps, "{nope".to_owned(), 400),
        ("absurdly nested", Method::POST, maps, deep, 400),
        ("unknown resource", Method::GET, "/api/v1/namespaces/default/widgets", String::new(), 404),
        ("unknown group", Method::GET, "/apis/nope.example/v1/x", String::new(), 404),
        ("bad selector", Method::GET, "/api/v1/pods?labelSelector=a%3D%3D%3Db", String::new(), 400),
        ("unsupported field", Method::GET, "/api/v1/pods?fieldSelector=spec.nope%3Dx", String::new(), 400),
        ("bad number", Method::GET, "/api/v1/pods?limit=abc", String::new(), 400),
        ("wrong verb", Method::POST, "/api/v1/namespaces/default/configmaps/x", "{}".to_owned(), 405),
        ("empty body", Method::POST, maps, String::new(), 400),
        (
            "unknown field",
            Method::POST,
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{}}"#.to_owned(),
            400,
        ),
    ] {
        let (code, answer) = admin.send(method, target, body).await;
        assert_eq!(code, want, "{what}: {answer}");
    }
    let (code, metrics) = admin.send(Method::GET, "/metrics", "").await;
    assert!(code == 200 && metrics.as_str().unwrap().contains("apiserver_request_total{"), "{metrics}");
    let huge = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    let mut other = Client::connect(&cluster, Some(&cluster.issue(&Profile::Admin))).await;
    assert_eq!(other.send(Method::POST, maps, huge).await.0, 413);
    cluster.stop().await;
}

/// A kubelet that shows its certificate, demands one, and answers a log and an upgrade with the path it was asked for.
async fn kubelet(keys: &ClusterKeys) -> u16 {
    let profile = Profile::KubeletServing { node_name: "n1".to_owned(), addresses: vec!["127.0.0.1".parse().unwrap()] };
    let config = support::server_tls(&profile.issue(keys, jiff::Timestamp::now()).unwrap());
    let mut config = config;
    config.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let tls = acceptor.accept(tcp).await.unwrap();
                assert!(tls.get_ref().1.peer_certificates().is_some(), "the server shows its client certificate");
                let mut stream = BufReader::new(tls);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    stream.read_line(&mut head).await.unwrap();
                }
                let target = head.split(' ').nth(1).unwrap().to_owned();
                assert!(!head.to_lowercase().contains("authorization"), "credentials stay here");
                if head.to_lowercase().contains("upgrade: websocket") {
                    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n").await.unwrap();
                    stream.write_all(target.as_bytes()).await.unwrap();
                    let mut byte = [0];
                    while stream.read(&mut byte).await.unwrap_or(0) == 1 {
                        stream.write_all(&byte.map(|b| b.to_ascii_uppercase())).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                } else {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-type: text/plain\r\n\r\n{target}", target.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec_reach_the_kubelet() {
    let cluster = Cluster::start_on("127.0.0.1:0", |options| {
        let identity = Profile::ApiServerKubeletClient.issue(&options.keys, jiff::Timestamp::now()).unwrap();
        let ca =
            Profile::KubeletServing { node_name: String::new(), addresses: Vec::new() }.authority(&options.keys).certificate_pem.clone();
        options.kubelet_tls = Some(Arc::new(client_tls(&ca, Some(&identity))));
    })
    .await;
    let port = kubelet(&cluster.keys).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    assert_eq!(cluster.admin(Method::POST, "/api/v1/nodes", node).await.0, 201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let (code, answer) = cluster.admin(Method::PATCH, "/api/v1/nodes/n1/status", status).await;
    assert_eq!(code, 200, "{answer}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let (code, answer) = cluster.admin(Method::POST, "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{answer}");

    let admin = cluster.issue(&Profile::Admin);
    let mut client = Client::connect(&cluster, Some(&admin)).await;
    let (code, log) = client.send(Method::GET, "/api/v1/namespaces/default/pods/p/log?tailLines=3", "").await;
    assert_eq!((code, log.as_str()), (200, Some("/containerLogs/default/p/c?tailLines=3")));

    let request = Request::builder()
        .uri("/api/v1/namespaces/default/pods/p/exec?command=echo&command=a%20b&stdin=true&stdout=true&container=c")
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v5.channel.k8s.io")
        .body(Full::new(Bytes::new()))
        .unwrap();
    client.sender.ready().await.unwrap();
    let mut response = client.sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let want = b"/exec/default/p/c?input=1&output=1&command=echo&command=a%20b";
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(want));
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"HELLO");
    drop(stream);
    cluster.stop().await;
}
