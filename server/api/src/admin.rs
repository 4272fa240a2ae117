//! What the operator's commands and a server say to each other, as JSON over the API port, below [`PREFIX`].
//!
//! The paths are no resources: RBAC judges them as non-resource URLs, so `system:masters` passes and nobody else does unless a role
//! names them.

use serde::{Deserialize, Serialize};

/// Where all of it is.
pub const PREFIX: &str = "/trireme/v1/";
/// GET → [`MemberList`]; DELETE `<id>[?force=true]`; POST `<id>/promote`, `<id>/lead`, `lead` (any voter but the leader).
pub const MEMBERS: &str = "members";

/// GET `servers`, `nodes`, `pods`, each with `?port=P` → what there is to scrape, as Prometheus' HTTP service discovery reads it.
pub const TARGETS: &str = "targets";

/// The members of the cluster, as one of them sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberList {
    /// The cluster's id, hex.
    pub cluster_id: String,
    /// The member that answered.
    pub answered_by: u64,
    /// Who leads, if that is known.
    pub leader: Option<u64>,
    /// The feature level that the cluster may use.
    pub feature_level: u32,
    /// All of them, in order of id.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its id: allocated once, never used again.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `leader`, `voter` or `learner`.
    pub role: String,
    /// Where its store is reached, `host:port`.
    pub peer_address: String,
    /// Where its API is reached, `https://host:port`.
    pub api_urls: Vec<String>,
    /// Its release.
    pub version: String,
    /// The highest feature level that it knows.
    pub feature_level: u32,
    /// What the leader knows of its progress; absent where another member answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How far a member is, as its leader knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Whether it answered lately.
    pub alive: bool,
    /// Entries of the log that it lacks.
    pub lag_entries: u64,
}

/// GET → [`SnapshotList`]; POST [`SnapshotRequest`] → [`Snapshot`]; POST `prune` with [`SnapshotPrune`] → [`SnapshotList`] of what was
/// removed; GET `archive` → the archive itself, of this moment. All on the server that answers.
pub const SNAPSHOTS: &str = "snapshots";

/// Snapshots in a server's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotList {
    /// The newest last.
    pub snapshots: Vec<Snapshot>,
}

/// One snapshot on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its file's name.
    pub name: String,
    /// Its file.
    pub location: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// When it was begun, milliseconds since 1970; 0 where that cannot be read.
    pub created_unix_ms: u64,
    /// The revision it holds; 0 where that cannot be read.
    pub revision: i64,
    /// The cluster it is of, hex.
    pub cluster_id: String,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is asked of `save`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRequest {
    /// The beginning of its name; the server's name and the time follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What is asked of `prune`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPrune {
    /// How many stay: the newest.
    pub retention: usize,
    /// Only those whose names begin like this are counted and removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
