//! Every wire format of Trireme that is not JSON, generated from `proto/*.proto`.
//!
//! Owns field numbers and nothing else: no logic, no I/O. All `bytes` fields are [`bytes::Bytes`].
//!
//! **Architecture Invariant:** field numbers are never reused. `etcd` answers to etcd's published
//! numbers, [`store`] is ours and durable: data directories written by every release stay readable.

mod packages {
    #![allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use packages::{etcdserverpb, mvccpb};

/// The etcd v3 API (keys, watch, leases, members, maintenance): packages `etcdserverpb` and `mvccpb` in one place.
pub mod etcd {
    pub use crate::packages::etcdserverpb::*;
    pub use crate::packages::mvccpb::*;
}

/// etcd's election service.
pub mod election {
    pub use crate::packages::v3electionpb::*;
}

/// etcd's lock service.
pub mod lock {
    pub use crate::packages::v3lockpb::*;
}

/// gRPC's health checking protocol.
pub mod health {
    pub use crate::packages::grpc::health::v1::*;
}

/// Raft log, commands, state machine records, snapshots and the stored value envelope.
pub mod store {
    pub use crate::packages::trireme::store::v1::*;

    /// Format of [`LogEntry`].
    pub const FORMAT_LOG_ENTRY: u32 = 1;
    /// Format of [`Vote`].
    pub const FORMAT_VOTE: u32 = 1;
    /// Format of [`Command`].
    pub const FORMAT_COMMAND: u32 = 1;
    /// Format of the state machine's tables, recorded in [`StateHead`].
    pub const FORMAT_STATE: u32 = 1;
    /// Format of [`SnapshotManifest`].
    pub const FORMAT_SNAPSHOT: u32 = 2;
    /// Format of a backup; see [`BackupHeader`].
    pub const FORMAT_BACKUP: u32 = 1;
    /// Format of [`StoredValue`].
    pub const FORMAT_STORED_VALUE: u32 = 1;
    /// Highest feature level this binary knows; see `Command.feature_level`.
    pub const FEATURE_LEVEL: u32 = 2;
}

/// The Raft peer protocol of port 2380.
pub mod peer {
    pub use crate::packages::trireme::peer::v1::*;
}

/// The Container Runtime Interface v1, as far as the kubelet speaks it.
pub mod cri {
    pub use crate::packages::runtime::v1::*;
}

/// What containerd offers beside CRI on the same socket: its content store, its names of images, its leases.
pub mod containerd {
    /// Blobs.
    pub mod content {
        pub use crate::packages::containerd::services::content::v1::*;
    }
    /// Names of images.
    pub mod images {
        pub use crate::packages::containerd::services::images::v1::*;
    }
    /// What holds content that no image names yet.
    pub mod leases {
        pub use crate::packages::containerd::services::leases::v1::*;
    }
}

/// The Container Storage Interface v1: a node's half.
pub mod csi {
    pub use crate::packages::csi::v1::*;
}

/// How plugins tell the kubelet of themselves.
pub mod pluginregistration {
    pub use crate::packages::pluginregistration::*;
}

/// The device plugin API v1beta1.
pub mod deviceplugin {
    pub use crate::packages::v1beta1::*;
}

/// The pod resources API v1.
pub mod podresources {
    pub use crate::packages::v1::*;
}
