//! The messages between the operator's commands and a server, as JSON over the API port, below [`PREFIX`].
//!
//! The paths are no resources: RBAC authorizes them as non-resource URLs, so only `system:masters` and users with a role that names the
//! URLs are allowed.

use serde::{Deserialize, Serialize};

/// Where all of it is.
pub const PREFIX: &str = "/trireme/v1/";
/// GET → [`MemberList`]; DELETE `<id>[?force=true]`; POST `<id>/promote`, `<id>/lead`, `lead` (any voter but the leader).
pub const MEMBERS: &str = "members";

/// GET `servers`, `nodes`, `pods`, each with `?port=P` → what there is to scrape, as Prometheus' HTTP service discovery reads it.
pub const TARGETS: &str = "targets";

/// GET → [`ControllerList`].
pub const CONTROLLERS: &str = "controllers";

/// The scheduler and the controllers of the server that answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerList {
    /// Whether that server leads: on the others, what is on waits.
    pub leads: bool,
    /// In order of their names.
    pub controllers: Vec<Controller>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Upstream's name.
    pub name: String,
    /// `on` or `off`.
    pub state: String,
    /// Why it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

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

/// GET → [`TokenList`]; POST [`NewToken`] → [`TokenCreated`]; DELETE `<id>`; POST [`RotateToken`] to `rotate` → [`RotatedToken`].
pub const TOKENS: &str = "tokens";

/// What a token lets its holder join as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenUsage {
    /// A node.
    Agent,
    /// A server, and so a node too.
    Server,
}

/// The tokens that administrators made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenList {
    /// In order of id.
    pub tokens: Vec<TokenInfo>,
}

/// What is known of a token: not its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// Its name, the part before the dot.
    pub id: String,
    /// What it is good for.
    pub usages: Vec<TokenUsage>,
    /// For people.
    pub description: String,
    /// When it was made, seconds since the epoch.
    pub created: Option<i64>,
    /// When it ends, seconds since the epoch; never if absent.
    pub expires: Option<i64>,
}

/// A token that is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewToken {
    /// What it is to be good for; agents if nothing is said.
    pub usages: Vec<TokenUsage>,
    /// For people.
    pub description: String,
    /// How long; 0 for ever.
    pub ttl_secs: i64,
}

/// A token that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// Its text: shown once.
    pub token: String,
    /// The stored data about it, without the secret.
    pub info: TokenInfo,
}

/// Another server token is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RotateToken {
    /// The new one, or its secret; made up if absent.
    pub secret: Option<String>,
}

/// The tokens in force after a rotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotatedToken {
    /// For servers.
    pub server_token: String,
    /// For agents.
    pub node_token: String,
}

/// GET → [`CertificateList`] of the server that answers; POST to `rotate` renews all of them → [`CertificateList`].
pub const CERTIFICATES: &str = "certificates";
/// The same of a node, at its kubelet's port.
pub const NODE_CERTIFICATES_PATH: &str = "/trireme/certificates";

/// The certificates of one server or node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateList {
    /// Whose.
    pub holder: String,
    /// Leaves first, then authorities.
    pub certificates: Vec<CertificateInfo>,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateInfo {
    /// The name of its file, or what it is for.
    pub name: String,
    /// Distinguished name.
    pub subject: String,
    /// Common name of the authority.
    pub issuer: String,
    /// From when on, seconds since the epoch.
    pub not_before: i64,
    /// Until when, seconds since the epoch.
    pub not_after: i64,
}

/// GET → [`SecretsStatus`].
pub const SECRETS: &str = "secrets-encrypt";

/// How Secrets are sealed in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretsStatus {
    /// Always: the store never holds a Secret in the clear.
    pub enabled: bool,
    /// The cipher.
    pub cipher: String,
    /// The id of the key that seals what is written now.
    pub active_key: String,
    /// The ids of all keys that open.
    pub keys: Vec<String>,
}
