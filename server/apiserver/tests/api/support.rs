//! A whole API server in this process: a store of one member in memory, HTTPS on a free port, an administrator.

#[path = "support/extension.rs"]
pub mod extension;
#[path = "support/hook.rs"]
pub mod hook;

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;
use trireme_apiserver::ApiServerOptions;
use trireme_apiserver::Body;
use trireme_apiserver::Caller;
use trireme_apiserver::UserInfo;
use trireme_cluster::bootstrap::Bootstrap;
use trireme_cluster::pki::{ClusterKeys, Issued, Profile, ServingNames};
use trireme_raft::{Listen, MemoryEngines, PeerIdentity, Store, StoreOptions, Timing, WhenEmpty};

/// Generous: the machine may be busy with ten other builds.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub api: ApiServer,
    pub store: Store,
    pub keys: Arc<ClusterKeys>,
    pub address: SocketAddr,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

pub fn log_to_stderr() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::start_on("127.0.0.1:0", |_, _| {}).await
    }

    pub async fn start_on(listen: &str, change: impl FnOnce(&mut ApiServerOptions, &ClusterKeys)) -> Cluster {
        log_to_stderr();
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let keys = Arc::new(ClusterKeys::generate(now).unwrap());
        let store = open_store(&keys, folder.path()).await;
        let mut options = ApiServerOptions::default();
        change(&mut options, &keys);
        let api = ApiServer::start(options, keys.api_server_keys().unwrap(), store.clone()).await.unwrap();
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let names = ServingNames { node_name: "test".to_owned(), cluster_domain: "cluster.local".to_owned(), ..ServingNames::default() };
        let serving = Profile::ApiServerServing(names).issue(&keys, now).unwrap();
        let stop = CancellationToken::new();
        let (server, ending) = (api.clone(), stop.clone());
        let tls = Arc::new(server_tls(&serving));
        tokio::spawn(async move { server.serve(listener, tls, ending).await });
        let cluster = Cluster { api, store, keys, address, stop, _folder: folder };
        cluster.born().await;
        cluster
    }

    /// Everything that every cluster has from its start, and the service account that a controller would make.
    async fn born(&self) {
        let bootstrap = Bootstrap {
            writer: trireme_cluster::bootstrap::Writer::of(self.api.clone(), None),
            reader: self.api.storage().clone(),
            service_ip: "10.43.0.1".parse().unwrap(),
            https_port: self.address.port(),
            service_cidr: "10.43.0.0/16".to_owned(),
        };
        bootstrap.run(&self.keys).await.unwrap();
        let body = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let (code, answer) = self.admin(Method::POST, "/api/v1/namespaces/default/serviceaccounts", body).await;
        assert!(code == 201 || code == 409, "{answer}");
        self.api.mark_bootstrapped();
    }

    /// A request by an administrator of this process. `Null` sends no body.
    pub async fn admin(&self, method: Method, target: &str, body: Value) -> (u16, Value) {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let response = self.send(method, target, body, &[("content-type", content_type)]).await;
        read(response).await
    }

    pub async fn send(&self, method: Method, target: &str, body: Value, headers: &[(&str, &str)]) -> Response<Body> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.api.call(admin(), request.body(body).unwrap()).await
    }

    pub fn issue(&self, profile: &Profile) -> Issued {
        profile.issue(&self.keys, Timestamp::now()).unwrap()
    }

    /// Waits until the watch cache, which admission and discovery follow, has passed what was written.
    pub async fn seen(&self, written: &Value) {
        let revision = written["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(self.api.storage().cache.wait_for(revision, PATIENCE).await);
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.api.stop();
        self.store.shutdown().await;
    }
}

pub fn admin() -> Caller {
    Caller { user: UserInfo::new("admin", &["system:masters", "system:authenticated"]), fence: None }
}

pub async fn read(response: Response<Body>) -> (u16, Value) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (code, value)
}

/// Reads a stream of watch events.
pub struct Events {
    body: Body,
    rest: Vec<u8>,
}

impl Events {
    pub fn new(response: Response<Body>) -> Events {
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), rest: Vec::new() }
    }

    /// The next event as (type, object); None at the end of the stream.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].take()));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// The next event as (type, name).
    pub async fn named(&mut self) -> (String, String) {
        let (kind, object) = self.next().await.expect("one more event");
        (kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

pub async fn open_store(keys: &ClusterKeys, folder: &std::path::Path) -> Store {
    let profile = Profile::Peer { member_name: "one".to_owned(), addresses: vec!["127.0.0.1".to_owned()] };
    let issued = profile.issue(keys, Timestamp::now()).unwrap();
    let identity =
        PeerIdentity::from_pem(keys.peer_ca.certificate_pem.as_bytes(), issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())
            .unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let advertise = socket.local_addr().unwrap().to_string();
    let options = StoreOptions {
        data_dir: folder.join("db"),
        name: "one".to_owned(),
        identity: Arc::new(identity),
        listen: Listen::Socket(socket),
        advertise,
        api_urls: Vec::new(),
        client_urls: Vec::new(),
        version: "test".to_owned(),
        when_empty: WhenEmpty::Initialize,
        timing: Timing { request: Duration::from_secs(40), ..Timing::default() },
        engines: Arc::new(MemoryEngines::new()),
        snapshot_every: 100_000,
        log_kept: 10_000,
        upkeep: trireme_raft::Upkeep { reserve_bytes: 0, ..Default::default() },
    };
    let store = Store::open(options).await.unwrap();
    let mut status = store.status();
    tokio::time::timeout(PATIENCE, status.wait_for(|s| s.leadership.is_some_and(|l| l.caught_up)))
        .await
        .expect("a leader in time")
        .unwrap();
    store
}

pub fn server_tls(serving: &Issued) -> rustls::ServerConfig {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(serving.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(trireme_apiserver::authn::accept_any_verifier())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
