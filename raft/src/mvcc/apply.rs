//! `apply`: one command against the state. Pure: what it does follows from the staged state, the command and
//! the place in the log that carries it, from nothing else.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::etcd;
use trireme_proto::store::command::Body;
use trireme_proto::store::command_result::Result as Outcome;
use trireme_proto::store::{Command, CommandError, CommandResult, ErrorCode, FEATURE_LEVEL, FORMAT_COMMAND, NoopCommand};

use super::lease::LeaseEffect;
use super::stage::Stage;
use super::write::Writer;
use super::{EntryId, compact, lease, members, proposal_results, txn};
use crate::StoreError;
use crate::mutant;

/// What a command did besides changing the state.
#[derive(Default, Debug)]
pub(crate) struct Effects {
    /// In order of the transaction; all of `revision`.
    pub(crate) events: Vec<etcd::Event>,
    /// Revision of the events.
    pub(crate) revision: i64,
    pub(crate) leases: Vec<LeaseEffect>,
}

/// Applies the encoded command of entry `id`. An error means that this replica cannot go on: the command is
/// damaged or from a newer release, or the engine failed. What a client did wrong is in the result.
pub(crate) fn apply(stage: &mut Stage<'_>, id: EntryId, encoded: Bytes) -> Result<(CommandResult, Effects), StoreError> {
    let halt = |what: String| StoreError::Halted(format!("entry {}: {what}", id.index));
    let command = Command::decode(encoded).map_err(|error| halt(error.to_string()))?;
    let Some(body) = &command.body else {
        return Err(halt(format!("unknown command (format {}, feature level {})", command.format, command.feature_level)));
    };
    if command.format > FORMAT_COMMAND || command.feature_level > FEATURE_LEVEL {
        return Err(halt(format!(
            "command of format {} and feature level {} is newer than this release ({FORMAT_COMMAND}, {FEATURE_LEVEL})",
            command.format, command.feature_level
        )));
    }
    stage.savepoint();
    if !command.proposal_id.is_empty()
        && !mutant::on("proposals-forgotten")
        && let Some(result) = proposal_results::find(stage, id.index, &command.proposal_id)?
    {
        return Ok((result, Effects::default()));
    }
    let done = refuse(&command, id).and_then(|()| run(stage, id, body));
    let (mut result, mut effects) = match done {
        Ok(done) => done,
        Err(error) => {
            let code = error_code(&error);
            let Some(code) = code else { return Err(error) };
            stage.rollback();
            return Ok((failed(stage, code, &error), Effects::default()));
        }
    };
    if !effects.events.is_empty() {
        stage.head.revision += 1;
        effects.revision = stage.head.revision;
    }
    result.revision = stage.head.revision;
    if !command.proposal_id.is_empty() {
        proposal_results::remember(stage, id.index, &command.proposal_id, &result);
    }
    Ok((result, effects))
}

/// Refuses expired and fenced commands. Expiry is checked first: beyond the window an earlier copy may have been applied and
/// forgotten, and the answer "fenced" would claim that it was not.
fn refuse(command: &Command, id: EntryId) -> Result<(), StoreError> {
    if !command.proposal_id.is_empty() && command.expires_at_index != 0 && id.index > command.expires_at_index {
        return Err(StoreError::ProposalExpired);
    }
    // Leader ids are standard ones: one leader a term, so the term names the leadership. A proposer fills in
    // node id and term together, from the same leadership.
    if let Some(fence) = &command.fence
        && fence.term != id.term
        && !mutant::on("fence-ignored")
    {
        return Err(StoreError::Fenced);
    }
    Ok(())
}

fn run(stage: &mut Stage<'_>, id: EntryId, body: &Body) -> Result<(CommandResult, Effects), StoreError> {
    let mut writer = Writer::default();
    let mut leases = Vec::new();
    let outcome = match body {
        Body::Noop(_) => done(),
        Body::Txn(request) => Outcome::Txn(txn::run(stage, &mut writer, request)?),
        Body::LeaseGrant(grant) => Outcome::Lease(lease::grant(stage, grant, &mut leases)?),
        Body::LeaseRevoke(revoke) => Outcome::Lease(lease::revoke(stage, &mut writer, revoke, &mut leases)?),
        Body::LeaseKeepAlive(keep_alive) => Outcome::Lease(lease::keep_alive(stage, keep_alive, &mut leases)?),
        Body::LeaseCheckpoint(checkpoint) => {
            lease::checkpoint(stage, checkpoint)?;
            done()
        }
        Body::Compact(compact) => Outcome::Compact(compact::compact(stage, compact)?),
        Body::Hold(hold) => Outcome::Compact(compact::hold(stage, hold)?),
        Body::MemberAllocate(allocate) => Outcome::Member(members::allocate(stage, allocate)?),
        Body::MemberUpdate(update) => Outcome::Member(members::update(stage, update)?),
        Body::MemberRemove(remove) => {
            members::remove(stage, remove)?;
            done()
        }
        Body::FeatureLevelRaise(raise) => {
            members::raise_feature_level(stage, raise, id)?;
            done()
        }
        Body::SealedPut(put) => Outcome::Sealed(members::sealed_put(stage, put)?),
        Body::SealedDelete(delete) => {
            members::sealed_delete(stage, delete)?;
            done()
        }
        Body::ClusterInit(init) => {
            members::cluster_init(stage, init)?;
            done()
        }
    };
    Ok((CommandResult { revision: 0, result: Some(outcome) }, Effects { events: writer.events, revision: 0, leases }))
}

fn done() -> Outcome {
    Outcome::Done(NoopCommand {})
}

/// The code of an error that is an answer; none for one that must stop apply.
fn error_code(error: &StoreError) -> Option<ErrorCode> {
    Some(match error {
        StoreError::Invalid(_) => ErrorCode::Invalid,
        StoreError::Fenced => ErrorCode::Fenced,
        StoreError::Compacted { .. } => ErrorCode::Compacted,
        StoreError::FutureRevision { .. } => ErrorCode::FutureRevision,
        StoreError::DuplicateKey => ErrorCode::DuplicateKey,
        StoreError::KeyNotFound => ErrorCode::KeyNotFound,
        StoreError::LeaseNotFound(_) => ErrorCode::LeaseNotFound,
        StoreError::LeaseExists(_) => ErrorCode::LeaseExists,
        StoreError::ProposalExpired => ErrorCode::ProposalExpired,
        StoreError::Conflict(_) => ErrorCode::Conflict,
        _ => return None,
    })
}

fn failed(stage: &Stage<'_>, code: ErrorCode, error: &StoreError) -> CommandResult {
    let message = match error {
        StoreError::LeaseNotFound(id) | StoreError::LeaseExists(id) => id.to_string(),
        StoreError::FutureRevision { requested, .. } => requested.to_string(),
        error => error.to_string(),
    };
    let error =
        CommandError { code: code as i32, message, compact_revision: stage.head.compact_revision, current_revision: stage.head.revision };
    CommandResult { revision: stage.head.revision, result: Some(Outcome::Error(error)) }
}

/// The error a result carries, for the proposer.
pub fn into_outcome(result: CommandResult) -> Result<CommandResult, StoreError> {
    let Some(Outcome::Error(error)) = &result.result else { return Ok(result) };
    let number = || error.message.parse().unwrap_or_default();
    Err(match error.code() {
        ErrorCode::Fenced => StoreError::Fenced,
        ErrorCode::Compacted => StoreError::Compacted { compact_revision: error.compact_revision },
        ErrorCode::FutureRevision => StoreError::FutureRevision { requested: number(), current: error.current_revision },
        ErrorCode::DuplicateKey => StoreError::DuplicateKey,
        ErrorCode::KeyNotFound => StoreError::KeyNotFound,
        ErrorCode::LeaseNotFound => StoreError::LeaseNotFound(number()),
        ErrorCode::LeaseExists => StoreError::LeaseExists(number()),
        ErrorCode::ProposalExpired => StoreError::ProposalExpired,
        ErrorCode::ResultForgotten => StoreError::ResultForgotten { revision: result.revision },
        ErrorCode::Conflict => StoreError::Conflict(error.message.clone()),
        ErrorCode::Invalid | ErrorCode::NotFound | ErrorCode::Unspecified => StoreError::Invalid(error.message.clone()),
    })
}
