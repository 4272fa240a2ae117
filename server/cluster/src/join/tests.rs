use std::{net::TcpListener, sync::Arc};

use http::Request;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use trireme_raft::{Listen, MemoryEngines, PeerIdentity, StoreOptions, Timing, WhenEmpty};

use super::*;
use crate::pki::{authority::certificates, seal::SEALED_NAME};
use crate::tokens::{JoinTokens, TokenText};
use trireme_apiserver::storage::fake_reader::FakeReader;

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
        upkeep: trireme_raft::Upkeep { reserve_bytes: 0, ..Default::default() },
    })
    .await
    .unwrap();
    store.status().wait_for(|status| status.leadership.is_some()).await.unwrap();
    let reader = Arc::new(FakeReader::default());
    let join = JoinService::new(JoinOptions {
        store: store.clone(),
        reader: reader.clone(),
        keys: keys.clone(),
        tokens: LiveTokens::new(store.clone(), keys.clone(), "server-secret".into()).unwrap(),
        reserved: vec!["10.0.0.100".into()],
        facts: ClusterFacts {
            cluster_cidr: "10.42.0.0/16".into(),
            service_cidr: "10.43.0.0/16".into(),
            cluster_dns: "10.43.0.10".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            flannel_backend: "vxlan".into(),
            network_policy: true,
            kube_proxy: true,
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
        let body = body.to_string().into();
        let request = RouteCall { method: &parts.method, path: parts.uri.path(), headers: &parts.headers, body: &body, from, now: at(0) };
        if let Err(status) = self.join.throttle(from, at(0)) {
            return (status.code(), serde_json::to_value(status).unwrap());
        }
        match self.join.stranger(request).await {
            Ok(response) => {
                let text = String::from_utf8_lossy(response.body()).into_owned();
                (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::from(text)))
            }
            Err(status) => (status.code(), serde_json::to_value(status).unwrap()),
        }
    }
}

fn csr() -> String {
    // What the request asks for must not matter: the token holder gets its node's names only.
    let mut params = CertificateParams::new(vec!["kubernetes.default".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn node_secret(world: &World) -> String {
    JoinTokens::derive("server-secret", &world.keys.server_ca.fingerprint().unwrap()).unwrap().node_secret().to_owned()
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
    let node_secret = node_secret(&world);
    let wrong_role = format!("server:{node_secret}");
    let token = format!("node:{node_secret}");
    let token = token.as_str();
    for (token, expected) in [("", 401), ("node:wrong", 401), (&wrong_role, 401), (token, 200), (":server-secret", 200)] {
        assert_eq!(world.ask("POST", NODE_PATH, token, node("w1", mine), 2).await.0, expected, "{token}");
    }
    let mut greedy = node("w9", mine);
    for taken in ["10.43.0.1", "10.0.0.1", "10.0.0.100", "127.0.0.1"] {
        greedy["node_ips"] = json!([taken]);
        assert!(matches!(world.ask("POST", NODE_PATH, token, greedy.clone(), 6).await.0, 400 | 403), "{taken}");
    }
    assert_eq!(world.ask("POST", NODE_PATH, token, node("s1", mine), 6).await.0, 403, "a server's name");
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
    let node_token = format!("node:{}", node_secret(&world));
    assert_eq!(world.ask("POST", SERVER_PATH, &node_token, request(Value::Null), 1).await.0, 403);
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
    let known = async |user: &UserInfo, path: &str| {
        let (method, headers, body) = (http::Method::GET, http::HeaderMap::new(), Bytes::new());
        world.join.member(user, RouteCall { method: &method, path, headers: &headers, body: &body, from: None, now: at(0) }).await
    };
    let list = known(&nodes, SERVERS_PATH).await.unwrap();
    assert!(String::from_utf8_lossy(list.body()).contains("10.0.0.2"));
    assert_eq!(known(&UserInfo::anonymous(), SERVERS_PATH).await.unwrap_err().code(), 403);
    assert!(world.join.is_for_members(SERVERS_PATH) && !world.join.is_for_members("/api"));
    world.store.shutdown().await;
}

#[tokio::test]
async fn tokens_that_were_made_admit_until_they_end_and_a_rotation_ends_the_old_one() {
    use trireme_api::admin::TokenUsage;
    let world = world().await;
    let tokens = LiveTokens::new(world.store.clone(), world.keys.clone(), "server-secret".into()).unwrap();
    let sealed = SealedBundle::seal(&world.keys, "server-secret").unwrap();
    world.store.sealed_put(SEALED_NAME, sealed.to_stored().unwrap(), 0).await.unwrap();
    tokens.record_secret().await.unwrap();
    let password = "a-secret-of-this-node";
    let request = json!({"node_name": "s2", "peer_address": "127.0.0.1:1", "api_url": "https://10.0.0.2:6443"});

    // An agent's token admits agents, a server's admits both; the keys come sealed under it, and the server secret with them.
    let (agent, _) = tokens.create(vec![TokenUsage::Agent], "for a rack".into(), 60, at(0)).await.unwrap();
    let (server, _) = tokens.create(vec![TokenUsage::Server], String::new(), 0, at(0)).await.unwrap();
    let basic = |text: &TokenText| format!("{}:{}", text.id, text.secret);
    assert_eq!(world.ask("POST", NODE_PATH, &basic(&agent), node("w1", password), 1).await.0, 200);
    assert_eq!(world.ask("POST", NODE_PATH, &format!(":{agent}"), node("w1", password), 1).await.0, 200, "short form");
    assert_eq!(world.ask("POST", SERVER_PATH, &basic(&agent), request.clone(), 1).await.0, 403);
    let (code, answer) = world.ask("POST", SERVER_PATH, &basic(&server), request.clone(), 1).await;
    assert_eq!(code, 200, "{answer}");
    let bundle: SealedBundle = serde_json::from_value(answer["sealed_keys"].clone()).unwrap();
    let opened = bundle.unseal(&server.secret).unwrap();
    let (value, salt) = (answer["server_secret"][0].as_str().unwrap(), answer["server_secret"][1].as_str().unwrap());
    let value = BASE64_STANDARD.decode(value).unwrap();
    assert_eq!(crate::tokens::open_server_secret(&opened, &hex::decode(salt).unwrap(), value.into()).unwrap(), "server-secret");
    let stored = world.store.range(&trireme_apiserver::storage::keys::get(&format!("/registry-join/token/{}", agent.id))).unwrap();
    assert!(!String::from_utf8_lossy(&stored.kvs[0].value).contains(&agent.secret));

    // Time is up: refused at once, removed by the leader's next round.
    let verify = async |at: Timestamp| {
        let header = format!("Basic {}", BASE64_STANDARD.encode(basic(&agent)));
        tokens.verify_header(&header, at).await.unwrap()
    };
    assert!(verify(at(50)).await.is_some() && verify(at(70)).await.is_none());
    tokens.clean_up(at(70)).await.unwrap();
    assert_eq!(tokens.list(at(0)).unwrap().len(), 1);

    // Another server secret: both tokens are replaced, on this server and on every other.
    let rotated = tokens.rotate("another-server-secret".into()).await.unwrap();
    assert_eq!(world.ask("POST", SERVER_PATH, "server:server-secret", request.clone(), 2).await.0, 401);
    assert_eq!(world.ask("POST", NODE_PATH, &format!("node:{}", node_secret(&world)), node("w1", password), 2).await.0, 401);
    assert_eq!(world.ask("POST", NODE_PATH, &format!("node:{}", rotated.node_secret()), node("w1", password), 2).await.0, 200);
    let (code, answer) = world.ask("POST", SERVER_PATH, "server:another-server-secret", request.clone(), 2).await;
    assert_eq!(code, 200, "{answer}");
    let bundle: SealedBundle = serde_json::from_value(answer["sealed_keys"].clone()).unwrap();
    assert!(bundle.unseal("server-secret").is_err() && bundle.unseal("another-server-secret").is_ok());
    assert_eq!(world.ask("POST", SERVER_PATH, &basic(&server), request.clone(), 3).await.0, 200, "made tokens stay");
    tokens.delete(&server.id).await.unwrap();
    assert_eq!(world.ask("POST", SERVER_PATH, &basic(&server), request, 3).await.0, 401);
    assert!(tokens.delete(&server.id).await.is_err());
    world.store.shutdown().await;
}
