//! The store's handle: what the rest of the server uses, and all it sees of Raft.
//!
//! Owns opening (whose folder is this, what may be healed, what must be refused), the tasks around Raft, and
//! the requests. A handle is cheap to clone and outlives Raft instances: when one ends because the disk failed,
//! reads go on, writes wait, and another instance is started over a newly verified log.
//!
//! Dropping the last handle does not stop the store; [`Store::shutdown`] does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use trireme_proto::peer::change_member_request::Change;
use trireme_proto::store::command::Body;
use trireme_proto::store::command_result::Result as Outcome;
use trireme_proto::{etcd, peer, store};

use crate::Fence;
use crate::backup::{self, Backup};
use crate::error::StoreError;
use crate::metrics::StoreMetrics;
use crate::mvcc::{KvHash, LeaseInfo, MvccCounters, Watch, check_txn};

pub(crate) mod command;
mod compare;
pub mod condition;
pub(crate) mod core;
pub(crate) mod datadir;
pub mod engines;
pub(crate) mod forward;
mod instance;
mod log_upkeep;
mod lost_leader;
mod open;
pub mod options;
pub(crate) mod read_batch;
pub mod space;
pub mod status;
mod supervise;
mod tasks;
mod upkeep;

use core::Core;
use options::{JoinTicket, StoreOptions};
use space::SpaceStatus;
use status::StoreStatus;

pub use open::other_servers;

pub use crate::types::MAX_TXN_BYTES;

/// A replicated, revisioned key-value store.
#[derive(Clone)]
pub struct Store {
    core: Arc<Core>,
    runtime: Arc<open::RaftRuntime>,
}

/// A granted or refreshed lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseGrant {
    /// Its id.
    pub id: i64,
    /// Its time to live.
    pub ttl_secs: i64,
}

// === impl Store ===

impl Store {
    /// Opens the store: founds a cluster, joins one, or restarts the member whose folder this is. Returns when
    /// Raft runs and peers are served; there may not be a leader yet.
    ///
    /// # Errors
    /// `Invalid` for a folder or an option that cannot be used, `Corrupt` for a damaged log or vote: that member
    /// must be removed and rejoin with an empty folder.
    pub async fn open(options: StoreOptions) -> Result<Store, StoreError> {
        let (core, runtime) = open::open(options).await?;
        Ok(Store { core, runtime: Arc::new(runtime) })
    }

    /// Proposes a transaction, forwarding it to the leader, and returns when it is applied here too.
    ///
    /// # Errors
    /// `NoLeader` where nothing happened; `OutcomeUnknown` where that cannot be said; `Fenced` where the fence's
    /// leadership has ended; what the transaction itself got wrong otherwise.
    pub async fn txn(&self, txn: etcd::TxnRequest, fence: Option<Fence>) -> Result<etcd::TxnResponse, StoreError> {
        check_txn(&txn)?;
        let size_bytes = txn.encoded_len();
        if size_bytes > MAX_TXN_BYTES {
            return Err(StoreError::TooLarge { size_bytes, limit_bytes: MAX_TXN_BYTES });
        }
        let result = self.submit(Body::Txn(txn), fence).await?;
        match result.result {
            Some(Outcome::Txn(mut response)) => {
                let header = response.header.get_or_insert_default();
                header.cluster_id = self.core.cluster_id;
                header.member_id = self.core.node_id;
                header.revision = result.revision;
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Grants a lease; id 0 means any.
    ///
    /// # Errors
    /// As [`Store::txn`]; `LeaseExists` for an id in use.
    pub async fn lease_grant(&self, ttl_secs: i64, id: i64) -> Result<LeaseGrant, StoreError> {
        let id = if id == 0 { rand::random_range(1..i64::MAX) } else { id };
        self.lease(Body::LeaseGrant(store::LeaseGrantCommand { id, ttl_secs })).await
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// As [`Store::txn`]; `LeaseNotFound`.
    pub async fn lease_revoke(&self, id: i64) -> Result<(), StoreError> {
        self.lease(Body::LeaseRevoke(store::LeaseRevokeCommand { id, if_generation: 0 })).await.map(drop)
    }

    /// Starts a lease's time again.
    ///
    /// # Errors
    /// As [`Store::txn`]; `LeaseNotFound`.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<LeaseGrant, StoreError> {
        self.lease(Body::LeaseKeepAlive(store::LeaseKeepAliveCommand { id })).await
    }

    /// What is known of a lease here; the remaining time is exact on the leader.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn lease_info(&self, id: i64) -> Result<Option<LeaseInfo>, StoreError> {
        self.core.state.lease(id, Instant::now().into_std())
    }

    /// Ids of all leases.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn leases(&self) -> Result<Vec<i64>, StoreError> {
        self.core.state.leases()
    }

    /// Compacts history before `revision`, as far as no holder keeps it.
    ///
    /// # Errors
    /// As [`Store::txn`]; `Compacted` and `FutureRevision`.
    pub async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.submit(Body::Compact(store::CompactCommand { revision, holder: String::new() }), None).await.map(drop)
    }

    /// Keeps history from `revision` on for `holder` (0 releases it), while `lease` lives (0: without a limit).
    ///
    /// # Errors
    /// As [`Store::compact`].
    pub async fn hold(&self, holder: &str, revision: i64, lease: i64) -> Result<(), StoreError> {
        let hold = store::HoldCommand { holder: holder.to_owned(), revision, lease };
        self.submit(Body::Hold(hold), None).await.map(drop)
    }

    /// ReadIndex: on return the local state has everything that was acknowledged before the call. Returns the
    /// local revision.
    ///
    /// # Errors
    /// `NoLeader` where no leader confirmed in time.
    pub async fn barrier(&self) -> Result<i64, StoreError> {
        if self.core.alone_without_raft() {
            return Ok(self.revision());
        }
        let deadline = Instant::now() + self.core.timing.request;
        let index = tokio::select! {
            () = self.core.cancel.cancelled() => return Err(StoreError::Shutdown),
            index = self.core.read_index() => index?,
        };
        if !crate::mutant::on("read-before-apply") {
            self.core.wait_applied(index, deadline).await?;
        }
        Ok(self.revision())
    }

    /// Reads a range from the local state, at the request's revision or the latest.
    ///
    /// # Errors
    /// `Compacted`, `FutureRevision`, `Invalid`, or those of the engine.
    pub fn range(&self, request: &etcd::RangeRequest) -> Result<etcd::RangeResponse, StoreError> {
        let mut response = self.core.state.range(request)?;
        let header = response.header.get_or_insert_default();
        header.cluster_id = self.core.cluster_id;
        header.member_id = self.core.node_id;
        Ok(response)
    }

    /// The same as if the keys of `hidden` (each from its first key to, exclusively, its second; in order) did not exist.
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn range_outside(&self, request: &etcd::RangeRequest, hidden: &[(Bytes, Bytes)]) -> Result<etcd::RangeResponse, StoreError> {
        let mut response = self.core.state.range_outside(request, hidden)?;
        let header = response.header.get_or_insert_default();
        header.cluster_id = self.core.cluster_id;
        header.member_id = self.core.node_id;
        Ok(response)
    }

    /// A number that is the same on every member for the same revision (0: the latest) and compaction floor. Reads
    /// everything: call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`Store::range`]; `Corrupt` where the state contradicts itself.
    pub fn hash(&self, revision: i64) -> Result<KvHash, StoreError> {
        self.core.state.hash(revision)
    }

    /// Removes compacted history here, now. Blocks.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn compact_now(&self) -> Result<(), StoreError> {
        self.core.state.compact_now()
    }

    /// Returns unused disk space to the file system. Blocks.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        self.core.state.reclaim()
    }

    /// The number of keys. Blocks at the first call.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn keys(&self) -> Result<i64, StoreError> {
        self.core.state.keys()
    }

    /// What the store measures of itself.
    #[must_use]
    pub fn metrics(&self) -> &StoreMetrics {
        &self.core.metrics
    }

    /// What its state machine has counted.
    #[must_use]
    pub fn counters(&self) -> &MvccCounters {
        self.core.state.counters()
    }

    /// The events of `[key, range_end)` from `start_revision` on: history first, then live.
    ///
    /// # Errors
    /// `Compacted` where the start is gone.
    pub fn watch(&self, key: Bytes, range_end: Bytes, start_revision: i64) -> Result<Watch, StoreError> {
        self.core.state.watch(key, range_end, start_revision)
    }

    /// The local revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.core.state.revision()
    }

    /// Local reads and watches below this revision are refused.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.core.state.compact_revision()
    }

    /// Waits until the local revision is at least `revision`.
    ///
    /// # Errors
    /// `Shutdown`.
    pub async fn wait_revision(&self, revision: i64) -> Result<(), StoreError> {
        self.core.state.wait_revision(revision).await
    }

    /// Size of the state on disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.core.state.size_bytes()
    }

    /// How much of it is in use.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.core.state.live_bytes()
    }

    /// How much space this member has, as the level changes.
    #[must_use]
    pub fn space(&self) -> watch::Receiver<SpaceStatus> {
        self.core.space.status()
    }

    /// This member's condition, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<StoreStatus> {
        self.core.status.subscribe()
    }

    /// This member's id.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.core.node_id
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.core.cluster_id
    }

    // ---- sealed keys ----

    /// A key of the cluster (CA, service account, encryption), sealed by the caller, and its version. Local:
    /// call [`Store::barrier`] first where it must be the latest.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn sealed(&self, name: &str) -> Result<Option<store::SealedRecord>, StoreError> {
        self.core.state.sealed(name)
    }

    /// Stores a sealed key if its version is still `if_version` (0: absent). Returns the new version.
    ///
    /// # Errors
    /// As [`Store::txn`]; `Conflict` for another version.
    pub async fn sealed_put(&self, name: &str, key: store::SealedKey, if_version: u64) -> Result<u64, StoreError> {
        let put = store::SealedPutCommand { name: name.to_owned(), key: Some(key), if_version };
        match self.submit(Body::SealedPut(put), None).await?.result {
            Some(Outcome::Sealed(sealed)) => Ok(sealed.version),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a sealed key of version `if_version`.
    ///
    /// # Errors
    /// As [`Store::sealed_put`].
    pub async fn sealed_delete(&self, name: &str, if_version: u64) -> Result<(), StoreError> {
        let delete = store::SealedDeleteCommand { name: name.to_owned(), if_version };
        self.submit(Body::SealedDelete(delete), None).await.map(drop)
    }

    // ---- backups ----

    /// What this member puts into its backups beside the state: settings that are needed to use it and are not in
    /// it. Nothing secret: it is stored as it is.
    pub fn set_backup_notes(&self, notes: Vec<store::BackupNote>) {
        self.core.origin.write().notes = notes;
    }

    /// Begins a backup of this member's own state, whichever member leads. It includes everything that was acknowledged before the call;
    /// writes go on meanwhile. See [`crate::backup`].
    ///
    /// # Errors
    /// As [`Store::barrier`]; those of the engine.
    pub async fn backup(&self) -> Result<Backup, StoreError> {
        self.barrier().await?;
        let origin = self.core.origin.read().clone();
        backup::stream(self.core.state.engine(), origin).await
    }

    // ---- members ----

    /// The effective configuration: every member with its id, role, key and addresses.
    pub async fn members(&self) -> Vec<store::MemberRecord> {
        self.core.configured()
    }

    /// On the leader: the members that acknowledged something within `within`, this one included, in order of id.
    /// Nothing on a follower, which cannot know.
    #[must_use]
    pub fn alive(&self, within: std::time::Duration) -> Vec<u64> {
        self.core.alive(within)
    }

    /// On the leader: how many entries of the log each member lacks. Nothing on a follower, which cannot know.
    #[must_use]
    pub fn lags(&self) -> BTreeMap<u64, u64> {
        self.core.lags()
    }

    /// The feature level that the cluster may use.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.core.state.info().feature_level
    }

    /// Makes room for a new member and returns what it needs to start. It becomes a voter by itself when it has
    /// caught up. The same key again gets a new id: the old one never votes again.
    ///
    /// # Errors
    /// `NoLeader`, `Invalid` (a name in use, say), `OutcomeUnknown`.
    pub async fn add_learner(&self, record: store::MemberRecord) -> Result<JoinTicket, StoreError> {
        let changed = self.core.change(Change::AddLearner(record)).await?;
        let ticket = peer::JoinTicket { cluster_id: self.core.cluster_id, node_id: changed.node_id, members: changed.members };
        Ok(JoinTicket(ticket))
    }

    /// Gives a learner its vote now.
    ///
    /// # Errors
    /// As [`Store::add_learner`].
    pub async fn promote(&self, id: u64) -> Result<(), StoreError> {
        self.core.change(Change::Promote(id)).await.map(drop)
    }

    /// Removes a member for good; the leader hands over first. Refused if the remaining voters would have no live quorum.
    ///
    /// # Errors
    /// As [`Store::add_learner`].
    pub async fn remove(&self, id: u64) -> Result<(), StoreError> {
        self.core.change(Change::Remove(id)).await.map(drop)
    }

    /// Removes a member for good, whatever becomes of the quorum.
    ///
    /// # Errors
    /// As [`Store::add_learner`].
    pub async fn remove_by_force(&self, id: u64) -> Result<(), StoreError> {
        let request = peer::ChangeMemberRequest { change: Some(Change::Remove(id)), force: true };
        self.core.change_as(request).await.map(drop)
    }

    /// Replaces the peer addresses recorded for a member. The member itself puts them right when it starts.
    ///
    /// # Errors
    /// As [`Store::add_learner`].
    pub async fn update_peer_addresses(&self, id: u64, addresses: Vec<String>) -> Result<(), StoreError> {
        let recorded = self.core.configured().into_iter().find(|member| member.id == id);
        let mut record = recorded.ok_or_else(|| StoreError::Invalid(format!("member {id} not found")))?;
        record.addresses.get_or_insert_default().peer = addresses;
        self.core.change(Change::Update(record)).await.map(drop)
    }

    /// Asks the leader to hand over to `id`, and waits until it has.
    ///
    /// # Errors
    /// As [`Store::add_learner`].
    pub async fn transfer_leader(&self, id: u64) -> Result<(), StoreError> {
        self.core.change(Change::TransferLeader(id)).await.map(drop)
    }

    /// Gives the lead to another voter, if this member has it: what to do before stopping, so that writes elsewhere wait
    /// for a hand-over and not for an election. Returns whether this member leads no more.
    pub async fn hand_over(&self) -> bool {
        self.core.hand_over().await
    }

    /// Stops: hands over the lead, then takes no more requests and no more votes. Everything acknowledged is on disk already. The databases
    /// are closed when this returns, and reads through this handle or a watch end with `Shutdown`.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.halt().await;
    }

    /// Stops at once and hands over nothing, as a crash would.
    pub async fn halt(&self) {
        self.core.cancel.cancel();
        self.core.state.close();
        self.runtime.stop(&self.core).await;
    }

    async fn lease(&self, body: Body) -> Result<LeaseGrant, StoreError> {
        match self.submit(body, None).await?.result {
            Some(Outcome::Lease(lease)) => Ok(LeaseGrant { id: lease.id, ttl_secs: lease.ttl_secs }),
            other => Err(unexpected(&other)),
        }
    }

    async fn submit(&self, body: Body, fence: Option<Fence>) -> Result<store::CommandResult, StoreError> {
        self.core.submit_fenced(body, fence).await
    }
}

fn unexpected(result: &Option<Outcome>) -> StoreError {
    StoreError::Corrupt(format!("a command was answered with {result:?}"))
}
