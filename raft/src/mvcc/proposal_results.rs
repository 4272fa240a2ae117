//! The results of remembered proposals, in the state: reading one, and writing one while its entry is applied.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::store::command_result::Result as Outcome;
use trireme_proto::store::{CommandError, CommandResult, ErrorCode, ProposalRecord};

use super::proposals::Ring;
use super::read;
use super::stage::Stage;
use crate::StoreError;
use crate::engine::{Read, Table};

/// Results above this size are not remembered, only that there was one.
const MAX_REMEMBERED_BYTES: usize = 4096;

/// The result of a proposal that was applied less than a window before entry `index`.
pub(crate) fn find(stage: &Stage<'_>, index: u64, id: &Bytes) -> Result<Option<CommandResult>, StoreError> {
    let found = stage.proposals.find(&stage.fresh, id);
    let Some((at, ring)) = found.filter(|(at, ring)| ring.remembers(*at, index)) else { return Ok(None) };
    let record = stage.get(Table::Proposal, &ring.place(at))?;
    let record: Option<ProposalRecord> = record.map(|record| read::decode("proposal", &record)).transpose()?;
    match record.filter(|record| record.index == at && record.proposal_id == *id) {
        Some(record) => Ok(Some(answer(record))),
        None => Err(StoreError::Corrupt(format!("the proposal of entry {at} is not where it was put"))),
    }
}

/// Notes that entry `index` was proposal `id`.
pub(crate) fn remember(stage: &mut Stage<'_>, index: u64, id: &Bytes, result: &CommandResult) {
    let record = ProposalRecord {
        result: (result.encoded_len() <= MAX_REMEMBERED_BYTES).then(|| result.clone()),
        revision: result.revision,
        index,
        proposal_id: Bytes::copy_from_slice(id),
    };
    let ring = Ring::of(stage.head.feature_level);
    stage.put(Table::Proposal, &ring.place(index), record.encode_to_vec());
    if ring == Ring::Wide && stage.proposals.leaves_narrow(&stage.fresh, index) {
        // The record in that place of the narrow ring is deleted: the ring is too short to remember it any longer.
        stage.delete(Table::Proposal, &Ring::Narrow.place(index));
    }
    stage.fresh.note(ring, index, id);
}

fn answer(record: ProposalRecord) -> CommandResult {
    record.result.unwrap_or_else(|| CommandResult {
        revision: record.revision,
        result: Some(Outcome::Error(CommandError {
            code: ErrorCode::ResultForgotten as i32,
            message: format!("applied as entry {}", record.index),
            ..Default::default()
        })),
    })
}
