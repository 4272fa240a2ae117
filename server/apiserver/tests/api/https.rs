//! The server from outside: identities, bad input, and the way through to a kubelet.

use std::sync::Arc;

use crate::support::Cluster;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use trireme_apiserver::egress::{Egress, Place, Stream};
use trireme_cluster::pki::{ClusterKeys, Issued, Profile};

fn client_tls(ca_pem: &str, identity: Option<&Issued>) -> rustls::ClientConfig {
    crate::support::log_to_stderr();
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
    let profile =
        Profile::KubeletServing { node_name: "n1".to_owned(), addresses: vec![NODE_IP.parse().unwrap(), "127.0.0.1".parse().unwrap()] };
    let config = crate::support::server_tls(&profile.issue(keys, jiff::Timestamp::now()).unwrap());
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

/// Connects to this machine whatever the address, so that tests can give nodes and pods addresses that are allowed.
struct Here;

impl Egress for Here {
    fn connect(&self, _host: &str, port: u16, _place: &Place) -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> {
        async move { Ok(Box::new(TcpStream::connect(("127.0.0.1", port)).await?) as Box<dyn Stream>) }.boxed()
    }
}

const NODE_IP: &str = "10.1.2.3";

/// A cluster whose server may speak to kubelets.
async fn cluster_with_kubelets() -> Cluster {
    Cluster::start_on("127.0.0.1:0", |options, keys| {
        let identity = Profile::ApiServerKubeletClient.issue(keys, jiff::Timestamp::now()).unwrap();
        let ca = Profile::KubeletServing { node_name: String::new(), addresses: Vec::new() }.authority(keys).certificate_pem.clone();
        options.kubelet_tls = Some(Arc::new(client_tls(&ca, Some(&identity))));
        options.egress = Arc::new(Here);
    })
    .await
}

/// A node that says it is at this address, and a pod on it.
async fn node(cluster: &Cluster, name: &str, address: &str, port: u16) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    assert_eq!(cluster.admin(Method::POST, "/api/v1/nodes", node).await.0, 201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let (code, answer) = cluster.admin(Method::PATCH, &format!("/api/v1/nodes/{name}/status"), status).await;
    assert_eq!(code, 200, "{answer}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("on-{name}")}, "spec": {"nodeName": name, "containers": [{"name": "c", "image": "i"}]}});
    let (code, answer) = cluster.admin(Method::POST, "/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{answer}");
}

async fn pod_address(cluster: &Cluster, name: &str, address: &str) {
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    let (code, answer) = cluster.admin(Method::PATCH, &format!("/api/v1/namespaces/default/pods/{name}/status"), status).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(cluster.admin(Method::GET, "/api/v1/namespaces/default/pods", Value::Null).await.0, 200);
}

/// A pod that answers every request with what it was sent.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
                let (parts, body) = request.into_parts();
                let headers: Vec<String> = parts.headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap())).collect();
                let body = body.collect().await.unwrap().to_bytes();
                let text = format!("{} {}\n{}\n{}", parts.method, parts.uri, headers.join("\n"), body.len());
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(text))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn security_12_proxies_reach_only_what_upstream_allows() {
    let cluster = cluster_with_kubelets().await;
    let kubelet = kubelet(&cluster.keys).await;
    let (api, pod) = (cluster.address.port(), echo().await);
    node(&cluster, "n1", NODE_IP, kubelet).await;
    let get = async |path: String| cluster.admin(Method::GET, &path, Value::Null).await;
    let (code, answer) = get("/api/v1/nodes/n1/proxy/pods".to_owned()).await;
    assert_eq!((code, answer.as_str()), (200, Some("/pods")));

    // A node that names this server, or another node's kubelet, as its own: what answers is not that node's kubelet.
    for (name, address, port) in [("n2", "127.0.0.1", api), ("n3", NODE_IP, kubelet)] {
        node(&cluster, name, address, port).await;
        let (code, answer) = get(format!("/api/v1/namespaces/default/pods/on-{name}/log")).await;
        assert!(code == 503 && answer["message"].as_str().unwrap().contains("is not its kubelet's"), "{name}: {answer}");
        let (code, answer) = get(format!("/api/v1/nodes/{name}/proxy/api/v1/secrets")).await;
        assert!(matches!(code, 400 | 503), "{name}: {answer}");
    }
    for (n, address) in ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "0.0.0.0", "224.0.0.1"].iter().enumerate() {
        let name = format!("bad{n}");
        node(&cluster, &name, address, pod).await;
        pod_address(&cluster, &format!("on-{name}"), address).await;
        for path in [
            format!("/api/v1/nodes/{name}/proxy/x"),
            format!("/api/v1/nodes/{name}:{pod}/proxy/x"),
            format!("/api/v1/namespaces/default/pods/on-{name}:{pod}/proxy/x"),
        ] {
            let (code, answer) = get(path.clone()).await;
            assert_eq!((code, answer["message"].as_str()), (400, Some("address not allowed")), "{path} {address}: {answer}");
        }
    }

    // A Service leads to pods of its namespace, no matter who writes its endpoints.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    assert_eq!(cluster.admin(Method::POST, "/api/v1/namespaces/default/services", service).await.0, 201);
    pod_address(&cluster, "on-n1", "10.42.0.9").await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = |address: &str, target: Value| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"port": pod}], "endpoints": [{"addresses": [address], "targetRef": target}]})
    };
    let mine = json!({"kind": "Pod", "namespace": "default", "name": "on-n1"});
    let mut codes = Vec::new();
    for (address, target) in [
        ("10.9.9.9", Value::Null),
        ("10.9.9.9", mine.clone()),
        ("10.42.0.9", json!({"kind": "Pod", "namespace": "kube-system", "name": "on-n1"})),
        ("10.42.0.9", mine),
    ] {
        cluster.admin(Method::DELETE, &format!("{slices}/s"), Value::Null).await;
        let (code, answer) = cluster.admin(Method::POST, slices, slice(address, target)).await;
        assert_eq!(code, 201, "{answer}");
        assert_eq!(get(slices.to_owned()).await.0, 200);
        codes.push(get("/api/v1/namespaces/default/services/s:80/proxy/x".to_owned()).await.0);
    }
    assert_eq!(codes, [503, 503, 503, 200]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_13_and_24_proxied_requests_keep_their_path_and_lose_credentials() {
    let cluster = cluster_with_kubelets().await;
    let port = echo().await;
    node(&cluster, "n1", NODE_IP, 1).await;
    pod_address(&cluster, "on-n1", "10.42.0.9").await;
    let proxy = format!("/api/v1/namespaces/default/pods/on-n1:{port}/proxy");
    let redirect = cluster.send(Method::GET, &format!("{proxy}?a=b"), Value::Null, &[]).await;
    assert_eq!((redirect.status().as_u16(), redirect.headers()["location"].to_str().unwrap()), (301, format!("{proxy}/?a=b").as_str()));
    for (path, want) in [("/a%20b", "/a%20b"), ("/a%3Fb%2Fc?d=%20&d=1", "/a%3Fb%2Fc?d=%20&d=1"), ("/", "/"), ("//x/../y", "//x/../y")] {
        let (code, text) = cluster.admin(Method::GET, &format!("{proxy}{path}"), Value::Null).await;
        assert_eq!((code, text.as_str().and_then(|text| text.lines().next())), (200, Some(format!("GET {want}").as_str())), "{path}");
    }
    // Bodies pass unread, larger than any that this server would keep.
    let admin = cluster.issue(&Profile::Admin);
    let mut client = Client::connect(&cluster, Some(&admin)).await;
    let (code, text) = client.send(Method::POST, &format!("{proxy}/upload"), vec![b'x'; 5 << 20]).await;
    assert_eq!((code, text.as_str().unwrap().lines().last()), (200, Some("5242880")));
    // A token that comes as a subprotocol ends here.
    let account = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let (code, answer) = cluster.admin(Method::POST, "/api/v1/namespaces/default/serviceaccounts/default/token", account).await;
    assert_eq!(code, 201, "{answer}");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "e"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "default"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    assert_eq!(cluster.admin(Method::POST, bindings, binding).await.0, 201);
    assert_eq!(cluster.admin(Method::GET, bindings, Value::Null).await.0, 200);
    let token = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, answer["status"]["token"].as_str().unwrap());
    let mut stranger = Client::connect(&cluster, None).await;
    let request = Request::builder()
        .uri(&proxy)
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-protocol", format!("base64url.bearer.authorization.k8s.io.{token}, x"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = stranger.sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(text.contains("sec-websocket-protocol: x") && !text.contains(&token), "{text}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_logs_come_over_websockets() {
    let cluster = cluster_with_kubelets().await;
    let port = kubelet(&cluster.keys).await;
    node(&cluster, "n1", NODE_IP, port).await;
    let admin = cluster.issue(&Profile::Admin);
    for (offered, agreed, want) in [
        (Some("binary.k8s.io"), Some("binary.k8s.io"), &b"\x82\x1e/containerLogs/default/on-n1/c\x88\x00"[..]),
        (None, None, &b"\x82\x1e/containerLogs/default/on-n1/c\x88\x00"[..]),
    ] {
        let mut client = Client::connect(&cluster, Some(&admin)).await;
        let mut request = Request::builder()
            .uri("/api/v1/namespaces/default/pods/on-n1/log")
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(offered) = offered {
            request = request.header("sec-websocket-protocol", offered);
        }
        let mut response = client.sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers().get("sec-websocket-protocol").and_then(|v| v.to_str().ok()), agreed);
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        let mut got = vec![0; want.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(want));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec_reach_the_kubelet() {
    let cluster = cluster_with_kubelets().await;
    let port = kubelet(&cluster.keys).await;
    node(&cluster, "n1", NODE_IP, port).await;

    let admin = cluster.issue(&Profile::Admin);
    let mut client = Client::connect(&cluster, Some(&admin)).await;
    let (code, log) = client.send(Method::GET, "/api/v1/namespaces/default/pods/on-n1/log?tailLines=3", "").await;
    assert_eq!((code, log.as_str()), (200, Some("/containerLogs/default/on-n1/c?tailLines=3")));

    let request = Request::builder()
        .uri("/api/v1/namespaces/default/pods/on-n1/exec?command=echo&command=a%20b&stdin=true&stdout=true&container=c")
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
    let want = b"/exec/default/on-n1/c?input=1&output=1&command=echo&command=a%20b";
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

/// Through a tunnel a server dials what its opener says is its own, so only a node opens one, as itself.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_opens_a_tunnel() {
    let cluster = Cluster::start().await;
    let node = Profile::KubeletClient { node_name: "n1".to_owned() };
    for (who, identity, code) in [
        ("nobody", None, 401),
        ("an administrator", Some(cluster.issue(&Profile::Admin)), 403),
        ("a node that asks for no upgrade", Some(cluster.issue(&node)), 400),
    ] {
        let mut client = Client::connect(&cluster, identity.as_ref()).await;
        let (got, answer) = client.send(Method::GET, trireme_tunnel::PATH, "").await;
        assert_eq!(got, code, "{who}: {answer}");
    }
    let mut client = Client::connect(&cluster, Some(&cluster.issue(&node))).await;
    let request = Request::builder()
        .uri(trireme_tunnel::PATH)
        .header("host", "localhost")
        .header("connection", "Upgrade")
        .header("upgrade", trireme_tunnel::PROTOCOL)
        .body(Full::default())
        .unwrap();
    let response = client.sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    cluster.stop().await;
}
