use std::{net::TcpListener, sync::Arc};

use http::Request;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use trireme_raft::{Listen, MemoryEngines, PeerIdentity, StoreOptions, Timing, WhenEmpty};

use super::*;
use crate::{authz::tests::FakeReader, pki::authority::certificates};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + secs).unwrap()
}

struct World {
    join: JoinService,
    reader: Arc<FakeReader>,
    keys: Arc<ClusterKeys>,
    store: Store,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let keys = Arc::new(ClusterKeys::generate(at(0)).unwrap());
    let peer = Profile::Peer { member_name: "s1".into(), addresses: vec![] }.issue(&keys, at(0)).unwrap();
    let identity =
        PeerIdentity::from_pem(keys.peer_ca.certificate_pem.as_bytes(), peer.certificate_pem.as_bytes(), peer.key_pem.as_bytes());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let advertise = socket.local_addr().unwrap().to_string();
    let store = Store::open(StoreOptions {
        data_dir: folder.path().join("db"),
        name: "s1".into(),
        identity: Arc::new(identity.unwrap()),
        listen: Listen::Socket(socket),
        advertise,
        api_urls: vec!["https://10.0.0.1:6443".into()],
        client_urls: Vec::new(),
        version: "test".into(),
        when_empty: WhenEmpty::Initialize,
        timing: Timing::default(),
        engines: Arc::new(MemoryEngines::new()),
        snapshot_every: 100_000,
        log_kept: 10_000,
    })
    .await
    .unwrap();
    store.status().wait_for(|status| status.leadership.is_some()).await.unwrap();
    let reader = Arc::new(FakeReader::default());
    let join = JoinService::new(JoinOptions {
        store: store.clone(),
        reader: reader.clone(),
        keys: keys.clone(),
        tokens: JoinTokens::new("server-secret", "node-secret"),
        facts: ClusterFacts {
            cluster_cidr: "10.42.0.0/16".into(),
            service_cidr: "10.43.0.0/16".into(),
            cluster_dns: "10.43.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            flannel_backend: "vxlan".into(),
        },
    });
    World { join, reader, keys, store, _folder: folder }
}

impl World {
    async fn ask(&self, method: &str, path: &str, token: &str, body: Value, from: u8) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Basic {}", BASE64_STANDARD.encode(token)));
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let from = Some(IpAddr::from([10, 0, 0, from]));
        let response = self.join.stranger(&parts, &body.to_string().into(), from, at(0)).await.unwrap();
        let code = response.status().as_u16();
        let text = String::from_utf8_lossy(response.body()).into_owned();
        (code, serde_json::from_str(&text).unwrap_or(Value::from(text)))
    }
}

fn csr() -> String {
    // What the request asks for must not matter: the token holder gets its node's names only.
    let mut params = CertificateParams::new(vec!["kubernetes.default".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn node(name: &str, password: &str) -> Value {
    json!({"node_name": name, "node_ips": ["10.0.0.9"], "node_password": password,
           "client_csr_pem": csr(), "serving_csr_pem": csr()})
}

#[tokio::test]
async fn nodes_come_in_by_token_and_keep_their_name() {
    let world = world().await;
    let (code, pem) = world.ask("GET", CA_PATH, "", Value::Null, 1).await;
    assert_eq!((code, pem.as_str().unwrap()), (200, world.keys.server_ca.certificate_pem.as_str()));
    let mine = "a-secret-of-this-node";
    for (token, expected) in
        [("", 401), ("node:wrong", 401), ("server:node-secret", 401), ("node:node-secret", 200), (":server-secret", 200)]
    {
        assert_eq!(world.ask("POST", NODE_PATH, token, node("w1", mine), 2).await.0, expected, "{token}");
    }
    let token = "node:node-secret";
    let (_, answer) = world.ask("POST", NODE_PATH, token, node("w1", mine), 3).await;
    assert_eq!(answer["servers"], json!(["https://10.0.0.1:6443"]));
    let client = certificates(answer["client_certificate_pem"].as_str().unwrap()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&client[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "O=system:nodes, CN=system:node:w1");
    assert!(leaf.subject_alternative_name().unwrap().is_none());
    let serving = certificates(answer["serving_certificate_pem"].as_str().unwrap()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&serving[0]).unwrap();
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);

    assert_eq!(world.ask("POST", NODE_PATH, token, node("w1", "a-secret-of-another"), 4).await.0, 403);
    world.reader.put("", "nodes", json!({"metadata": {"name": "w1"}}));
    assert_eq!(world.ask("POST", NODE_PATH, token, node("w1", "a-secret-of-another"), 4).await.0, 403);
    for bad in [node("W_1", mine), node("w2", "short"), json!({}), json!([1])] {
        assert_eq!(world.ask("POST", NODE_PATH, token, bad, 5).await.0, 400);
    }
    let mut no_csr = node("w3", mine);
    no_csr["client_csr_pem"] = "rubbish".into();
    assert_eq!(world.ask("POST", NODE_PATH, token, no_csr, 5).await.0, 400);
    assert_eq!(world.ask("DELETE", NODE_PATH, token, json!({}), 5).await.0, 405);
    world.store.shutdown().await;
}

#[tokio::test]
async fn a_guesser_is_slowed_down_alone() {
    let world = world().await;
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(world.ask("POST", NODE_PATH, "node:guess", json!({}), 7).await.0);
    }
    assert_eq!((codes[0], codes[9]), (401, 429));
    assert_eq!(world.ask("GET", CA_PATH, "", Value::Null, 8).await.0, 200);
    world.store.shutdown().await;
}

#[tokio::test]
async fn servers_get_the_keys_sealed_and_a_place() {
    let world = world().await;
    let request =
        |spki: Value| json!({"node_name": "s2", "peer_address": "127.0.0.1:1", "api_url": "https://10.0.0.2:6443", "peer_spki": spki});
    let token = "server:server-secret";
    assert_eq!(world.ask("POST", SERVER_PATH, token, request(Value::Null), 1).await.0, 503, "nothing sealed yet");
    let sealed = SealedBundle::seal(&world.keys, "server-secret").unwrap();
    world.store.sealed_put(SEALED_NAME, sealed.to_stored().unwrap(), 0).await.unwrap();
    assert_eq!(world.ask("POST", SERVER_PATH, "node:node-secret", request(Value::Null), 1).await.0, 403);
    let (code, answer) = world.ask("POST", SERVER_PATH, token, request(Value::Null), 1).await;
    assert_eq!((code, &answer["ticket"]), (200, &Value::Null));
    let bundle: SealedBundle = serde_json::from_value(answer["sealed_keys"].clone()).unwrap();
    assert_eq!(bundle.unseal("server-secret").unwrap().peer_ca.key_pem, world.keys.peer_ca.key_pem);
    assert_eq!(world.ask("POST", SERVER_PATH, token, request(json!("zz")), 1).await.0, 400);
    let (code, answer) = world.ask("POST", SERVER_PATH, token, request(json!("ab".repeat(32))), 1).await;
    assert_eq!(code, 200, "{answer}");
    let ticket = BASE64_STANDARD.decode(answer["ticket"].as_str().unwrap()).unwrap();
    let ticket = trireme_raft::JoinTicket::from_bytes(ticket.into()).unwrap();
    assert_ne!(ticket.node_id(), world.store.node_id());
    assert_eq!(world.join.servers().await, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);

    let nodes = UserInfo::new("system:node:w1", &["system:nodes"]);
    let list = world.join.servers_for(&nodes, SERVERS_PATH).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(list.body()).contains("10.0.0.2"));
    assert!(world.join.servers_for(&UserInfo::anonymous(), SERVERS_PATH).await.unwrap().is_err());
    assert!(world.join.servers_for(&nodes, "/api").await.is_none());
    world.store.shutdown().await;
}
