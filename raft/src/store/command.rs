//! Wraps what is asked for into a command that can be proposed again without being applied twice.

use bytes::Bytes;
use prost::Message;
use trireme_proto::store;
use trireme_proto::store::command::Body;

use crate::Fence;
use crate::mvcc::PROPOSAL_WINDOW;

/// A command that is appended later than this after it was made is refused: apply remembers ids for one window,
/// and the first copy cannot stand before the point at which the command was made.
const LIFETIME: u64 = PROPOSAL_WINDOW - 1;

/// The encoded command and the id it carries. `applied_index` is the last entry applied here.
pub(crate) fn encode(body: Body, fence: Option<Fence>, applied_index: u64) -> (Bytes, u128) {
    let proposal_id: u128 = rand::random();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let command = store::Command {
        format: store::FORMAT_COMMAND,
        proposal_id: Bytes::copy_from_slice(&proposal_id.to_be_bytes()),
        expires_at_index: applied_index + LIFETIME,
        fence: fence.map(|fence| store::Fence { term: fence.term, node_id: fence.node_id }),
        // Recorded, never compared.
        proposer_unix_ms: now.map_or(0, |now| now.as_millis() as u64),
        feature_level: 1,
        body: Some(body),
    };
    (command.encode_to_vec().into(), proposal_id)
}
