//! A host: what survives a restart (identity, disk, folder), and the programs that run while it is up: the store, and
//! beside it clients and watchers as an API server has them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use trireme_raft::{Listen, PeerIdentity, Store, StoreError, StoreOptions, Timing, WhenEmpty};

use super::board::Board;
use super::disk::SimDisk;
use super::load::Client;
use super::net::{Net, SimTransport, address};
use super::recorder::Recorder;
use super::watcher::host_watchers;

/// What all hosts of a world have in common.
#[derive(Clone)]
pub struct Common {
    /// The seed.
    pub seed: u64,
    /// How many hosts there are.
    pub hosts: usize,
    /// Between two calls of a client, at most.
    pub pace_ms: u64,
    /// Applied entries between two snapshots.
    pub snapshot_every: u64,
    /// The network.
    pub net: Arc<Net>,
    /// The board.
    pub board: Arc<Board>,
    /// The history.
    pub recorder: Arc<Recorder>,
}

/// What survives a host's restart.
#[derive(Clone)]
pub struct Seat {
    /// Its number.
    pub host: usize,
    /// Its key.
    pub identity: Arc<PeerIdentity>,
    /// Its disk.
    pub disk: Arc<SimDisk>,
    /// Its folder, for what is a plain file.
    pub folder: PathBuf,
    /// Whether it founds the cluster.
    pub founder: bool,
    /// Counts its starts.
    pub life: u64,
}

/// The clocks of the product.
#[must_use]
pub fn timing() -> Timing {
    Timing { request: Duration::from_secs(5), ..Timing::default() }
}

/// Keys and certificates for all hosts, under one CA.
///
/// # Errors
/// Those of the certificate maker.
pub fn seats(hosts: usize, base: &Path, watch_ring_bytes: usize) -> anyhow::Result<Vec<Seat>> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    (0..hosts)
        .map(|host| {
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new(vec!["member".to_owned()])?.signed_by(&key, &issuer)?;
            let identity = PeerIdentity::from_pem(issuer.pem().as_bytes(), certificate.pem().as_bytes(), key.serialize_pem().as_bytes())?;
            let folder = base.join(format!("h{host}-0"));
            Ok(Seat { host, identity: Arc::new(identity), disk: SimDisk::new(watch_ring_bytes), folder, founder: host == 0, life: 0 })
        })
        .collect()
}

impl Seat {
    fn name(&self) -> String {
        format!("h{}", self.host)
    }

    fn record(&self) -> trireme_proto::store::MemberRecord {
        trireme_raft::member_record(&self.name(), self.identity.spki_sha256().clone(), &address(self.host), &[], "simulation")
    }

    fn options(&self, common: &Common, when_empty: WhenEmpty) -> StoreOptions {
        StoreOptions {
            data_dir: self.folder.clone(),
            name: self.name(),
            identity: self.identity.clone(),
            listen: Listen::Transport(SimTransport::new(common.net.clone(), self.host)),
            advertise: address(self.host),
            api_urls: Vec::new(),
            client_urls: Vec::new(),
            version: "simulation".to_owned(),
            when_empty,
            timing: timing(),
            engines: self.disk.clone(),
            snapshot_every: common.snapshot_every,
            log_kept: common.snapshot_every / 4,
            upkeep: trireme_raft::Upkeep { reserve_bytes: 0, ..Default::default() },
        }
    }
}

/// Everything that runs on a host, until it is dropped.
pub async fn program(seat: Seat, common: Common) {
    let Common { board, recorder, .. } = &common;
    let when_empty = match (seat.folder.join("member").exists(), seat.founder) {
        (true, _) => WhenEmpty::Refuse,
        (false, true) => WhenEmpty::Initialize,
        (false, false) => loop {
            match board.ticket(seat.host) {
                Some(ticket) => break WhenEmpty::Join(ticket),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        },
    };
    let store = match Store::open(seat.options(&common, when_empty)).await {
        Ok(store) => store,
        Err(error) => return recorder.fail(format!("h{} does not start: {error}", seat.host)),
    };
    board.put_store(seat.host, store.clone());
    let rng = |what: u64| StdRng::seed_from_u64(common.seed ^ (seat.host as u64 + 1) << 48 ^ seat.life << 32 ^ what);
    let client = |what: &str, number: u64, pace_ms: u64| {
        let name = format!("{what}@h{}.{}", seat.host, seat.life);
        Client::new(name, store.clone(), board.clone(), recorder.clone(), rng(number), pace_ms)
    };
    tokio::spawn(client("a", 1, common.pace_ms).work());
    tokio::spawn(client("b", 2, common.pace_ms).work());
    tokio::spawn(client("lease", 3, common.pace_ms * 20).lease());
    tokio::spawn(client("leader", 4, common.pace_ms).lead());
    tokio::spawn(host_watchers(seat.host, common.hosts, store.clone(), board.clone(), recorder.clone(), rng(5)));
    tokio::spawn(tell_leadership(store.clone(), recorder.clone()));
    std::future::pending::<()>().await;
}

async fn tell_leadership(store: Store, recorder: Arc<Recorder>) {
    let mut status = store.status();
    loop {
        if let Some(led) = status.borrow_and_update().leadership {
            recorder.leads(led.fence.term, led.fence.node_id);
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Makes room for `seat` and gives it a ticket, through any member; true if it worked.
pub async fn admit(store: Store, seat: Seat, common: Common) -> bool {
    match store.add_learner(seat.record()).await {
        Ok(ticket) => {
            common.recorder.note(&format!("h{} is admitted as {}", seat.host, ticket.node_id()));
            common.board.put_ticket(seat.host, Some(ticket));
            true
        }
        Err(error) => {
            common.recorder.note(&format!("h{} is not admitted: {error}", seat.host));
            matches!(error, StoreError::Shutdown)
        }
    }
}
