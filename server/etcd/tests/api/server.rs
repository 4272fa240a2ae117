//! A server for one test, and short forms of what clients say.

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trireme_etcd::{EtcdApi, EtcdOptions};
use trireme_proto::etcd;
use trireme_proto::etcd::kv_client::KvClient;
use trireme_proto::etcd::request_op::Request as Op;
use trireme_raft::{Listen, MemoryEngines, PeerIdentity, Store, StoreOptions, Timing, Upkeep, WhenEmpty};

/// Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub store: Store,
    pub address: SocketAddr,
    pub channel: Channel,
    cancel: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Server {
        Server::with(EtcdOptions::default()).await
    }

    pub async fn with(options: EtcdOptions) -> Server {
        Server::over(options, Upkeep { reserve_bytes: 0, ..Upkeep::default() }).await
    }

    /// Over a store that looks after itself in this way.
    pub async fn over(options: EtcdOptions, upkeep: Upkeep) -> Server {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned());
            let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        });
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path(), upkeep).await;
        let cancel = CancellationToken::new();
        let api = EtcdApi::new(store.clone(), options, cancel.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = api.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Server { store, address, channel, cancel, _folder: folder }
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub async fn put(&self, key: &str, value: &str) -> i64 {
        let put = etcd::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() };
        self.kv().put(put).await.unwrap().into_inner().header.unwrap().revision
    }

    pub async fn range(&self, request: etcd::RangeRequest) -> etcd::RangeResponse {
        self.kv().range(request).await.unwrap().into_inner()
    }

    pub async fn get(&self, key: &str) -> Option<etcd::KeyValue> {
        self.range(etcd::RangeRequest { key: bytes(key), ..Default::default() }).await.kvs.pop()
    }

    /// What a page says, with its code.
    pub async fn page(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        self.store.shutdown().await;
    }
}

async fn open_store(folder: &std::path::Path, upkeep: Upkeep) -> Store {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["member".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let identity = PeerIdentity::from_pem(ca.pem().as_bytes(), certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = StoreOptions {
        data_dir: folder.join("db"),
        name: "one".to_owned(),
        identity: Arc::new(identity),
        advertise: socket.local_addr().unwrap().to_string(),
        listen: Listen::Socket(socket),
        api_urls: Vec::new(),
        client_urls: vec!["https://127.0.0.1:2379".to_owned()],
        version: "test".to_owned(),
        when_empty: WhenEmpty::Initialize,
        timing: Timing::default(),
        engines: Arc::new(MemoryEngines::new()),
        snapshot_every: 100_000,
        log_kept: 10_000,
        upkeep,
    };
    let store = Store::open(options).await.unwrap();
    let mut status = store.status();
    let ready = status.wait_for(|status| status.leadership.is_some_and(|led| led.caught_up) && status.has_quorum_contact);
    tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
    store
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Every key.
pub fn everything() -> etcd::RangeRequest {
    etcd::RangeRequest { key: bytes("\0"), range_end: bytes("\0"), ..Default::default() }
}

pub fn prefix(text: &str) -> etcd::RangeRequest {
    etcd::RangeRequest { key: bytes(text), range_end: prefix_end(text), ..Default::default() }
}

pub fn prefix_end(text: &str) -> Bytes {
    let mut end = text.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    end.into()
}

pub fn op(request: Op) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

pub fn put_op(key: &str, value: &str) -> etcd::RequestOp {
    op(Op::RequestPut(etcd::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }))
}

pub fn get_op(key: &str) -> etcd::RequestOp {
    op(Op::RequestRange(etcd::RangeRequest { key: bytes(key), ..Default::default() }))
}

pub fn delete_op(key: &str, range_end: &str) -> etcd::RequestOp {
    op(Op::RequestDeleteRange(etcd::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: true }))
}

/// Holds a refusal against etcd's.
#[track_caller]
pub fn must_refuse<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

pub fn keys(response: &etcd::RangeResponse) -> Vec<String> {
    response.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}
