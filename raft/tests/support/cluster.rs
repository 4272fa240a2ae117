//! Members in one process, over real TLS sockets on loopback.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use trireme_proto::etcd;
use trireme_raft::{Engines, Listen, PeerIdentity, Store, StoreOptions, StoreStatus, Timing, Upkeep, WhenEmpty};

/// Generous: the machine may be busy with ten other builds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A peer CA.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A member's place: identity, address, folder. Survives the member.
pub struct Seat {
    pub name: String,
    pub identity: Arc<PeerIdentity>,
    pub address: String,
    pub folder: PathBuf,
    pub timing: Timing,
    pub upkeep: Upkeep,
    socket: Option<TcpListener>,
}

impl Ca {
    pub fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn identity(&self) -> Arc<PeerIdentity> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["member".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = PeerIdentity::from_pem(self.issuer.pem().as_bytes(), certificate.pem().as_bytes(), key.serialize_pem().as_bytes());
        Arc::new(identity.unwrap())
    }
}

impl Seat {
    pub fn new(ca: &Ca, name: &str, base: &std::path::Path) -> Seat {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let upkeep = Upkeep { reserve_bytes: 0, ..Upkeep::default() };
        let folder = base.join(name);
        Seat { name: name.to_owned(), identity: ca.identity(), address, folder, timing: timing(), upkeep, socket: Some(socket) }
    }

    pub fn options(&mut self, engines: Arc<dyn Engines>, when_empty: WhenEmpty) -> StoreOptions {
        let listen = match self.socket.take() {
            Some(socket) => Listen::Socket(socket),
            None => Listen::Address(self.address.parse().unwrap()),
        };
        StoreOptions {
            data_dir: self.folder.clone(),
            name: self.name.clone(),
            identity: self.identity.clone(),
            listen,
            advertise: self.address.clone(),
            api_urls: Vec::new(),
            client_urls: Vec::new(),
            version: "test".to_owned(),
            when_empty,
            timing: self.timing,
            engines,
            snapshot_every: 100_000,
            log_kept: 10_000,
            upkeep: self.upkeep,
        }
    }

    /// Its next start will be at another address.
    pub fn move_to_another_port(&mut self) -> String {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        self.address = socket.local_addr().unwrap().to_string();
        self.socket = Some(socket);
        self.address.clone()
    }

    pub fn record(&self) -> trireme_proto::store::MemberRecord {
        trireme_raft::member_record(&self.name, self.identity.spki_sha256().clone(), &self.address, &[], "test")
    }

    pub async fn open(&mut self, engines: Arc<dyn Engines>, when_empty: WhenEmpty) -> Store {
        Store::open(self.options(engines, when_empty)).await.unwrap()
    }
}

/// Three members.
pub struct Cluster {
    pub base: tempfile::TempDir,
    pub ca: Ca,
    pub engines: Arc<dyn Engines>,
    pub seats: Vec<Seat>,
    pub stores: Vec<Option<Store>>,
}

impl Cluster {
    /// A founder and two that joined as learners and were promoted.
    pub async fn start(timing: Timing, engines: Arc<dyn Engines>) -> Cluster {
        Cluster::start_with(timing, Upkeep { reserve_bytes: 0, ..Upkeep::default() }, engines).await
    }

    /// The same with an upkeep of its own.
    pub async fn start_with(timing: Timing, upkeep: Upkeep, engines: Arc<dyn Engines>) -> Cluster {
        log_to_stderr();
        let base = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let mut seats: Vec<Seat> = ["a", "b", "c"].map(|name| Seat { timing, upkeep, ..Seat::new(&ca, name, base.path()) }).into();
        let founder = seats[0].open(engines.clone(), WhenEmpty::Initialize).await;
        until(&founder, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
        let mut stores = vec![Some(founder)];
        for seat in &mut seats[1..] {
            let ticket = stores[0].as_ref().unwrap().add_learner(seat.record()).await.unwrap();
            stores.push(Some(seat.open(engines.clone(), WhenEmpty::Join(ticket)).await));
            let voters = stores.len();
            until(stores[voters - 1].as_ref().unwrap(), "promotion", |status| status.voters.len() == voters).await;
        }
        let cluster = Cluster { base, ca, engines, seats, stores };
        for store in cluster.running() {
            let settled = |status: &StoreStatus| status.voters.len() == 3 && !status.changing_members && status.has_quorum_contact;
            until(store, "three voters", settled).await;
        }
        cluster
    }

    pub fn store(&self, index: usize) -> &Store {
        self.stores[index].as_ref().unwrap()
    }

    pub fn running(&self) -> impl Iterator<Item = &Store> {
        self.stores.iter().flatten()
    }

    pub async fn leader(&self) -> usize {
        let someone = self.running().next().unwrap();
        let known = until(someone, "a leader", |status| status.leader.is_some()).await.leader.unwrap().node_id;
        let leads = |store: &Option<Store>| store.as_ref().is_some_and(|store| store.node_id() == known);
        let leader = self.stores.iter().position(leads).unwrap();
        until(self.stores[leader].as_ref().unwrap(), "leadership", |status| status.leadership.is_some()).await;
        leader
    }

    pub async fn stop(&mut self, index: usize) {
        let store = self.stores[index].take().unwrap();
        store.shutdown().await;
    }

    pub async fn restart(&mut self, index: usize) {
        let store = self.seats[index].open(self.engines.clone(), WhenEmpty::Refuse).await;
        self.stores[index] = Some(store);
    }

    pub async fn end(mut self) {
        for store in self.stores.iter_mut().filter_map(Option::take) {
            store.shutdown().await;
        }
    }
}

pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(200),
        election_min: Duration::from_millis(1000),
        election_max: Duration::from_millis(2000),
        rpc: Duration::from_secs(5),
        request: Duration::from_secs(40),
    }
}

/// Engines of the real kind where they were built.
pub fn engines() -> Arc<dyn Engines> {
    #[cfg(feature = "rocksdb")]
    return Arc::new(trireme_raft::DiskEngines);
    #[cfg(not(feature = "rocksdb"))]
    return Arc::new(trireme_raft::MemoryEngines::new());
}

pub fn log_to_stderr() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    });
}

pub async fn until(store: &Store, what: &str, condition: impl FnMut(&StoreStatus) -> bool) -> StoreStatus {
    let mut status = store.status();
    match tokio::time::timeout(PATIENCE, status.wait_for(condition)).await {
        Ok(status) => status.unwrap().clone(),
        Err(_) => panic!("not in time: {what}; status {:?}", store.status().borrow().clone()),
    }
}

pub fn put(key: &str, value: &str) -> etcd::TxnRequest {
    let put = etcd::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    let request = Some(etcd::request_op::Request::RequestPut(put));
    etcd::TxnRequest { success: vec![etcd::RequestOp { request }], ..Default::default() }
}

pub fn get(store: &Store, key: &str) -> Option<String> {
    let request = etcd::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
    let response = store.range(&request).unwrap();
    response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}
