//! Wraps what is asked for into a command that can be proposed again without being applied twice.

use bytes::Bytes;
use prost::Message;
use trireme_proto::store;
use trireme_proto::store::command::Body;

use crate::Fence;
use crate::mvcc::window;

/// What a cluster knows from its first entry on, before its members have reported anything.
pub(crate) const FIRST_LEVEL: u32 = 1;

/// The feature level that members need to apply this. A command that is new in a release names the level that came with it.
pub(crate) fn level_of(body: &Body) -> u32 {
    match body {
        Body::Noop(_)
        | Body::Txn(_)
        | Body::LeaseGrant(_)
        | Body::LeaseRevoke(_)
        | Body::LeaseKeepAlive(_)
        | Body::LeaseCheckpoint(_)
        | Body::Compact(_)
        | Body::Hold(_)
        | Body::MemberAllocate(_)
        | Body::MemberUpdate(_)
        | Body::MemberRemove(_)
        | Body::FeatureLevelRaise(_)
        | Body::SealedPut(_)
        | Body::SealedDelete(_)
        | Body::ClusterInit(_) => FIRST_LEVEL,
    }
}

/// The encoded command and the id it carries. `applied_index` is the last entry applied here, `feature_level` what the cluster knows as of
/// then or later.
///
/// A command that is appended later than a window after it was made is refused: apply remembers ids for one window, and the first copy
/// cannot stand before the point at which the command was made. Invariant: it stands behind the entry that raised the level to this one.
pub(crate) fn encode(body: Body, fence: Option<Fence>, applied_index: u64, feature_level: u32) -> (Bytes, u128) {
    let proposal_id: u128 = rand::random();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let command = store::Command {
        format: store::FORMAT_COMMAND,
        proposal_id: Bytes::copy_from_slice(&proposal_id.to_be_bytes()),
        expires_at_index: applied_index + window(feature_level) - 1,
        fence: fence.map(|fence| store::Fence { term: fence.term, node_id: fence.node_id }),
        // For diagnosis: recorded, never compared with another time.
        proposer_unix_ms: now.map_or(0, |now| now.as_millis() as u64),
        feature_level: level_of(&body),
        body: Some(body),
    };
    (command.encode_to_vec().into(), proposal_id)
}
