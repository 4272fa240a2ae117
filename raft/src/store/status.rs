//! What a store says about itself.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Fence;

/// What this member is in Raft.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Not running (starting, or the disk failed).
    #[default]
    Stopped,
    /// Receives the log, has no vote.
    Learner,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// The leader, as far as this member knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderInfo {
    /// Its node id.
    pub node_id: u64,
    /// The term it leads.
    pub term: u64,
    /// Its peer endpoint, `host:port`.
    pub peer_address: String,
    /// Its name.
    pub name: String,
    /// URLs of its API server.
    pub api_urls: Vec<String>,
}

/// This member's own leadership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// To be carried by every write that only the leader may do.
    pub fence: Fence,
    /// Whether local apply has passed the first entry of this leadership, and so everything before it.
    pub caught_up: bool,
}

/// A store's condition. It changes as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreStatus {
    /// This member.
    pub node_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// Its role.
    pub role: Role,
    /// The term it knows of.
    pub term: u64,
    /// The leader.
    pub leader: Option<LeaderInfo>,
    /// Last entry applied here.
    pub applied_index: u64,
    /// Last entry known here to be committed.
    pub committed_index: u64,
    /// The leader has heard from a quorum, or a follower from the leader, within an election timeout.
    pub has_quorum_contact: bool,
    /// Set while this member leads.
    pub leadership: Option<Leadership>,
    /// Voters of the effective membership.
    pub voters: Vec<u64>,
    /// A membership change is under way: until it is done, old and new voters must both agree.
    pub changing_members: bool,
    /// Why Raft does not run here, or why this member cannot take part; none otherwise.
    pub failure: Option<Arc<str>>,
}

/// The last message from a leader: its sender and its time.
#[derive(Default)]
pub(crate) struct Contact {
    last: Mutex<Option<(u64, Instant)>>,
}

impl Contact {
    pub(crate) fn touch(&self, from: u64) {
        *self.last.lock() = Some((from, Instant::now()));
    }

    pub(crate) fn within(&self, from: u64, limit: std::time::Duration) -> bool {
        self.last.lock().is_some_and(|(id, at)| id == from && at.elapsed() < limit)
    }
}

/// Returns when another member than `leader` leads; never where that cannot be known any more.
pub(crate) async fn leader_changed(mut leads: watch::Receiver<Option<u64>>, leader: u64) {
    if leads.wait_for(|now| now.is_some_and(|now| now != leader)).await.is_err() {
        std::future::pending().await
    }
}
