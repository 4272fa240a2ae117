//! What a store is started with.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use trireme_proto::{peer, store};

use crate::engine::Engine;
use crate::error::StoreError;
use crate::log::LogKept;
use crate::network::tls::PeerIdentity;
use crate::network::transport::Transport;

/// Everything [`super::Store::open`] needs.
pub struct StoreOptions {
    /// The store's own folder (`<data-dir>/server/db`). Created when missing.
    pub data_dir: PathBuf,
    /// Name of this member, unique in the cluster.
    pub name: String,
    /// Key, certificate and CA for the peer protocol.
    pub identity: Arc<PeerIdentity>,
    /// Where this member listens for peers.
    pub listen: Listen,
    /// `host:port` at which the other members reach us.
    pub advertise: String,
    /// URLs of this member's API server, for readers of the member list.
    pub api_urls: Vec<String>,
    /// URLs at which this member serves the etcd API, for the same.
    pub client_urls: Vec<String>,
    /// Release, as `trireme version` prints it.
    pub version: String,
    /// What to do when the folder is empty. A folder with a member in it is always restarted.
    pub when_empty: WhenEmpty,
    /// Clocks and limits.
    pub timing: Timing,
    /// The engines of log and state.
    pub engines: Arc<dyn Engines>,
    /// Applied entries between two snapshots, at most. [`u64::MAX`]: as [`Upkeep::log`] says.
    pub snapshot_every: u64,
    /// Entries kept in the log behind a snapshot that is taken for that reason, at most.
    pub log_kept: u64,
    /// How the store looks after itself.
    pub upkeep: Upkeep,
}

/// How the store looks after itself: space, history, comparison with the other replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upkeep {
    /// The state may take this much on disk; beyond, writes that make it larger are refused.
    pub quota_bytes: u64,
    /// With less than this free on the disk, writes that make the state larger are refused. `None`: a fiftieth of the disk,
    /// between 16 and 256 MiB.
    pub low_bytes: Option<u64>,
    /// Size of a file that is kept in reserve, and released when the disk is full, so that deletes and compaction still have room. 0 for
    /// none.
    pub reserve_bytes: u64,
    /// How often the space is looked at.
    pub space_every: Duration,
    /// History younger than this is kept; a holder may keep more. Zero: no compaction by time.
    pub retention: Duration,
    /// ... unless it has more revisions than this.
    pub retention_revisions: i64,
    /// How often the leader compares the replicas. Zero: never.
    pub compare_every: Duration,
    /// How much log there is.
    pub log: LogUpkeep,
}

/// When snapshots are taken, and how much of the log stays behind them, in bytes and time. [`StoreOptions::snapshot_every`] and
/// [`StoreOptions::log_kept`] limit both in entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogUpkeep {
    /// A snapshot is taken when the log has grown by so many bytes since the one before,
    pub snapshot_bytes: u64,
    /// ... or when it is this old and anything was written since.
    pub snapshot_age: Duration,
    /// How much of the log stays behind it, for followers that were away.
    pub kept: LogKept,
}

/// Where a member listens for peers.
pub enum Listen {
    /// Bind this address.
    Address(SocketAddr),
    /// Use this socket, bound already.
    Socket(TcpListener),
    /// A simulation: streams come from here, in both directions, and the store starts no thread of its own.
    /// Everything runs as tasks of the runtime on which the store is opened, which has one thread.
    Transport(Arc<dyn Transport>),
}

/// What to do with an empty folder.
#[derive(Clone, Debug)]
pub enum WhenEmpty {
    /// Found a new cluster of one member.
    Initialize,
    /// Become the member that an existing cluster made room for.
    Join(JoinTicket),
    /// Refuse to start: the folder should hold a member.
    Refuse,
}

/// What [`super::Store::add_learner`] gives for a joiner, to be carried to it over the HTTPS API.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinTicket(pub(crate) peer::JoinTicket);

/// Clocks. All are printed at start.
///
/// A follower that hears nothing asks for votes when the leader's lease (`election_max`) and a random time between
/// `election_min` and `election_max` have passed. A leader whose process died is noticed without a clock.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// After the lease, a follower waits this long (at least) before it asks for votes.
    pub election_min: Duration,
    /// ... and at most. Also the leader's lease: without a quorum's answer for this long it accepts no proposals.
    pub election_max: Duration,
    /// For a connection to a peer, and for each answer of one.
    pub rpc: Duration,
    /// For a proposal or a barrier, from call to answer.
    pub request: Duration,
}

/// The engines behind a store: log and state, each in a folder of its own.
pub trait Engines: Send + Sync + 'static {
    /// Opens (or creates) the log engine. Every record in its write-ahead log must be accounted for.
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError>;
    /// Opens (or creates) the state engine.
    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError>;
    /// How much of the recent past watches find in memory; what is older they read from the state engine.
    fn watch_ring_bytes(&self) -> usize;
    /// Makes the folder of a state engine, which does not exist yet, out of a checkpoint.
    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError>;
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            rpc: Duration::from_secs(2),
            request: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// The default with other clocks, for slow networks and machines. The election timeout is the greatest; the least is
    /// half of it.
    ///
    /// # Errors
    /// `Invalid` where a lease would not outlast three heartbeats.
    pub fn with_clocks(heartbeat: Duration, election_timeout: Duration) -> Result<Timing, StoreError> {
        if heartbeat.is_zero() || election_timeout < heartbeat * 4 {
            return Err(StoreError::Invalid(format!(
                "an election timeout of {} ms is less than four heartbeats of {} ms",
                election_timeout.as_millis(),
                heartbeat.as_millis()
            )));
        }
        Ok(Timing { heartbeat, election_min: election_timeout / 2, election_max: election_timeout, ..Timing::default() })
    }
}

// === impl Upkeep ===

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep {
            // etcd's and kube-apiserver's own figures: https://etcd.io/docs/v3.6/dev-guide/limit/.
            quota_bytes: 8 << 30,
            low_bytes: None,
            reserve_bytes: 64 << 20,
            space_every: Duration::from_secs(1),
            retention: Duration::from_secs(300),
            retention_revisions: 1_000_000,
            compare_every: Duration::from_secs(60),
            log: LogUpkeep::default(),
        }
    }
}

// === impl LogUpkeep ===

impl Default for LogUpkeep {
    fn default() -> LogUpkeep {
        LogUpkeep {
            snapshot_bytes: 64 << 20,
            snapshot_age: Duration::from_secs(600),
            // A start reads all of the log, so it is long only while much is written: then long enough for a follower to be away for a minute
            // and half a minute to come back in, at ten thousand writes of a kibibyte a second.
            kept: LogKept { bytes: 64 << 20, young: Duration::from_secs(90), bytes_max: 1 << 30 },
        }
    }
}

// === impl JoinTicket ===

impl JoinTicket {
    /// For the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.encode_to_vec().into()
    }

    /// From the wire.
    ///
    /// # Errors
    /// `Invalid` where it is no ticket.
    pub fn from_bytes(bytes: Bytes) -> Result<JoinTicket, StoreError> {
        let ticket = peer::JoinTicket::decode(bytes).map_err(|error| StoreError::Invalid(format!("join ticket: {error}")))?;
        match ticket.node_id != 0 && ticket.cluster_id != 0 && !ticket.members.is_empty() {
            true => Ok(JoinTicket(ticket)),
            false => Err(StoreError::Invalid("join ticket: incomplete".into())),
        }
    }

    /// The id that was allocated.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.0.node_id
    }

    /// The cluster to join.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }
}

// === impl StoreOptions ===

impl StoreOptions {
    /// The record of this member, to ask an existing member for a place: what
    /// [`super::Store::add_learner`] takes.
    #[must_use]
    pub fn member_record(&self) -> store::MemberRecord {
        let mut record = member_record(&self.name, self.identity.spki_sha256().clone(), &self.advertise, &self.api_urls, &self.version);
        record.addresses.get_or_insert_default().client = self.client_urls.clone();
        record
    }
}

/// A record for [`super::Store::add_learner`].
#[must_use]
pub fn member_record(name: &str, spki_sha256: Bytes, peer_address: &str, api_urls: &[String], version: &str) -> store::MemberRecord {
    store::MemberRecord {
        id: 0,
        name: name.to_owned(),
        spki: spki_sha256,
        addresses: Some(store::MemberAddresses { peer: vec![peer_address.to_owned()], api: api_urls.to_vec(), client: Vec::new() }),
        role: store::MemberRole::Unspecified as i32,
        version: version.to_owned(),
        feature_level: store::FEATURE_LEVEL,
        revision: 0,
    }
}
