//! Which proposals were applied lately, and with what result: a proposal that is sent again is answered, not applied again.
//!
//! The records lie in a ring of [`PROPOSAL_WINDOW`] places, one for each entry of the log: to remember a proposal is one
//! write, which also forgets the one before, and nothing is ever deleted. Which id stands where is kept in memory
//! and read from the ring at start. What a lookup finds follows from the entries applied alone, not from what is still
//! in memory or on disk.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::store::command_result::Result as Outcome;
use trireme_proto::store::{CommandError, CommandResult, ErrorCode, ProposalRecord};

use super::read;
use super::stage::Stage;
use crate::StoreError;
use crate::engine::{Read, Table};

/// Proposal ids are remembered for so many log entries.
pub const PROPOSAL_WINDOW: u64 = 4096;

/// Results above this size are not remembered, only that there was one.
const MAX_REMEMBERED_BYTES: usize = 4096;

/// Ids and the entries that carried them.
#[derive(Default)]
pub(crate) struct Proposals {
    by_id: HashMap<Bytes, u64>,
    in_order: VecDeque<(u64, Bytes)>,
}

/// The same for the entries of one batch, until that is written.
#[derive(Default)]
pub(crate) struct Fresh {
    by_id: HashMap<Bytes, u64>,
    in_order: Vec<(u64, Bytes)>,
}

fn place(index: u64) -> [u8; 2] {
    ((index % PROPOSAL_WINDOW) as u16).to_be_bytes()
}

/// Whether a proposal of entry `at` is still remembered when entry `index` is applied.
fn within(at: u64, index: u64) -> bool {
    at + PROPOSAL_WINDOW > index
}

// === impl Proposals ===

impl Proposals {
    /// As the ring in `view` has them.
    pub(crate) fn load(view: &dyn Read) -> Result<Proposals, StoreError> {
        let mut found = Vec::new();
        let mut ring = view.cursor(Table::Proposal, &[], None)?;
        while let Some((_, record)) = ring.entry() {
            let record: ProposalRecord = read::decode("proposal", record)?;
            found.push((record.index, record.proposal_id));
            ring.advance()?;
        }
        found.sort_unstable();
        let mut proposals = Proposals::default();
        proposals.take(Fresh { by_id: HashMap::new(), in_order: found });
        Ok(proposals)
    }

    /// The batch was written.
    pub(crate) fn take(&mut self, fresh: Fresh) {
        let Some((last, _)) = fresh.in_order.last() else { return };
        let last = *last;
        for (index, id) in fresh.in_order {
            self.by_id.insert(id.clone(), index);
            self.in_order.push_back((index, id));
        }
        while let Some((_, id)) = self.in_order.pop_front_if(|(index, _)| !within(*index, last)) {
            self.by_id.remove(&id);
        }
    }
}

// === impl Fresh ===

impl Fresh {
    fn note(&mut self, index: u64, id: Bytes) {
        self.by_id.insert(id.clone(), index);
        self.in_order.push((index, id));
    }
}

/// The result of a proposal that was applied less than a window before entry `index`.
pub(crate) fn find(stage: &Stage<'_>, index: u64, id: &Bytes) -> Result<Option<CommandResult>, StoreError> {
    let at = stage.proposals.by_id.get(id).copied().or_else(|| stage.fresh.by_id.get(id).copied());
    let Some(at) = at.filter(|at| within(*at, index)) else { return Ok(None) };
    let record = stage.get(Table::Proposal, &place(at))?;
    let record: Option<ProposalRecord> = record.map(|record| read::decode("proposal", &record)).transpose()?;
    match record.filter(|record| record.index == at && record.proposal_id == *id) {
        Some(record) => Ok(Some(answer(record))),
        None => Err(StoreError::Corrupt(format!("the proposal of entry {at} is not where it was put"))),
    }
}

/// Notes that entry `index` was proposal `id`.
pub(crate) fn remember(stage: &mut Stage<'_>, index: u64, id: &Bytes, result: &CommandResult) {
    let id = Bytes::copy_from_slice(id);
    let record = ProposalRecord {
        result: (result.encoded_len() <= MAX_REMEMBERED_BYTES).then(|| result.clone()),
        revision: result.revision,
        index,
        proposal_id: id.clone(),
    };
    stage.put(Table::Proposal, &place(index), record.encode_to_vec());
    stage.fresh.note(index, id);
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
