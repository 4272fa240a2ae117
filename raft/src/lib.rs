//! A replicated, revisioned key-value store: etcd's data model on openraft and an ordered engine.
//!
//! Knows no Kubernetes. From the inside out:
//!
//! - [`engine`]: ordered tables on disk (RocksDB) or in memory, behind one seam;
//! - [`mvcc`]: the state machine, a pure function of state and command;
//! - the Raft adapters around it, and the `Store` handle that outlives any Raft instance.
//!
//! **Architecture Invariant:** `mvcc` depends on `engine` and on nothing of Raft but an entry's term and index. Only
//! `engine/rocks.rs` names RocksDB.

pub mod backup;
mod blocking;
mod bootstrap;
pub mod engine;
mod error;
pub mod log;
mod membership;
pub mod metrics;
mod mutant;
pub mod mvcc;
pub mod network;
pub mod node;
pub mod reset;
pub mod snapshot;
pub mod store;
pub mod types;

pub use bootstrap::{Progress, Step};
pub use error::StoreError;
pub use mvcc::{KvHash, LeaseInfo, Watch, WatchBatch, WatchError};
pub use network::tls::PeerIdentity;
pub use network::transport::{Accept, Transport, Wire};
pub use store::condition::MemberCondition;
#[cfg(feature = "rocksdb")]
pub use store::engines::DiskEngines;
pub use store::engines::MemoryEngines;
pub use store::options::{Engines, JoinTicket, Listen, LogUpkeep, StoreOptions, Timing, Upkeep, WhenEmpty, member_record};
pub use store::other_servers;
pub use store::space::{SpaceLevel, SpaceStatus};
pub use store::status::{LeaderInfo, Leadership, Role, StoreStatus};
pub use store::{LeaseGrant, Store};

/// A leadership. A command that carries one is applied only if an entry of this leadership carries it, so a
/// deposed leader's controllers cannot write. Only code in this process makes fences: no header can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// Its term. One leader a term, so this alone decides.
    pub term: u64,
    /// Its leader.
    pub node_id: u64,
}
