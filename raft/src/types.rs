//! The concrete types openraft runs on, and their one wire form.
//!
//! Owns the translation between openraft's values and the prost messages of `proto/store.proto`, which are
//! what log, snapshots and network carry. Entries keep their command as opaque [`Bytes`]: nothing between
//! proposal and apply decodes it. Must not do I/O.
//!
//! Leader ids are `leader_id_std` (one leader a term, raft paper section 5.2), so a term alone names a leadership.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{EntryPayload, RaftTypeConfig};
use prost::Message;
use trireme_proto::{peer, store};

use crate::error::StoreError;

openraft::declare_raft_types!(
    /// openraft's type parameters for this store.
    pub TypeConfig:
        D = Proposal,
        R = store::CommandResult,
        NodeId = u64,
        Node = store::MemberRecord,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

/// Larger transactions are refused. Three times what the API server lets through.
pub const MAX_TXN_BYTES: usize = 8 << 20;

/// A log position.
pub type LogId = openraft::LogId<CommittedLeaderId<u64>>;
/// A vote: the leader, or candidate, of a term.
pub type Vote = <TypeConfig as RaftTypeConfig>::Vote;
/// One record of the log.
pub type Entry = <TypeConfig as RaftTypeConfig>::Entry;
/// A configuration of voters and learners.
pub type Membership = openraft::Membership<u64, store::MemberRecord>;
/// A configuration and where it stands in the log.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId<u64>, u64, store::MemberRecord>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// An encoded [`store::Command`], opaque to consensus.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

// === impl Proposal ===

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// === conversions ===

/// The position `index` of `term`.
#[must_use]
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// The term of a position.
#[must_use]
pub fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

pub(crate) fn log_id_to_proto(id: &LogId) -> store::LogId {
    store::LogId { term: term_of(id), index: id.index() }
}

pub(crate) fn log_id_from_proto(id: &store::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_to_proto(vote: &Vote) -> store::Vote {
    let mut proto = store::Vote {
        format: store::FORMAT_VOTE,
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
        crc32c: 0,
    };
    proto.crc32c = vote_crc(&proto);
    proto
}

pub(crate) fn vote_from_proto(vote: &store::Vote) -> Result<Vote, StoreError> {
    if vote.format != store::FORMAT_VOTE {
        return Err(StoreError::Corrupt(format!("vote of unknown format {}", vote.format)));
    }
    if vote.crc32c != vote_crc(vote) {
        return Err(StoreError::Corrupt("the vote fails its checksum".into()));
    }
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.node_id),
        false => Vote::new(vote.term, vote.node_id),
    })
}

pub(crate) fn require_vote(vote: Option<&store::Vote>) -> Result<Vote, StoreError> {
    vote_from_proto(vote.ok_or_else(|| StoreError::Invalid("message without a vote".into()))?)
}

pub(crate) fn membership_to_proto(membership: &Membership) -> peer::Membership {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, record): (&u64, &store::MemberRecord)| {
        let mut record = record.clone();
        record.id = *id;
        let standing = match voters.contains(id) {
            true => store::MemberRole::Voter,
            false => store::MemberRole::Learner,
        };
        if record.role != store::MemberRole::Witness as i32 {
            record.role = standing as i32;
        }
        record
    };
    peer::Membership {
        voters: membership.get_joint_config().iter().map(|ids| peer::VoterSet { ids: ids.iter().copied().collect() }).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

pub(crate) fn membership_from_proto(membership: &peer::Membership) -> Result<Membership, StoreError> {
    let configs = membership.voters.iter().map(|voters| voters.ids.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, store::MemberRecord> = membership.members.iter().map(|member| (member.id, unplaced(member.clone()))).collect();
    Membership::new(configs, nodes).map_err(|error| StoreError::Corrupt(format!("membership: {error}")))
}

/// A record without what its place in the membership says, so that equal members compare equal.
pub(crate) fn unplaced(mut member: store::MemberRecord) -> store::MemberRecord {
    member.id = 0;
    if member.role != store::MemberRole::Witness as i32 {
        member.role = store::MemberRole::Unspecified as i32;
    }
    member
}

/// As it stands in the state's head and in snapshot manifests.
pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    let proto = peer::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    };
    proto.encode_to_vec().into()
}

pub(crate) fn decode_stored_membership(bytes: &Bytes) -> Result<StoredMembership, StoreError> {
    let stored = peer::StoredMembership::decode(bytes.clone()).map_err(|error| StoreError::Corrupt(format!("membership: {error}")))?;
    let membership = match &stored.membership {
        Some(membership) => membership_from_proto(membership)?,
        None => Membership::default(),
    };
    Ok(StoredMembership::new(stored.log_id.as_ref().map(log_id_from_proto), membership))
}

pub(crate) fn entry_to_proto(entry: &Entry) -> store::LogEntry {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (store::EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(proposal) => (store::EntryKind::Command, proposal.0.clone()),
        EntryPayload::Membership(membership) => (store::EntryKind::Membership, membership_to_proto(membership).encode_to_vec().into()),
    };
    let mut proto = store::LogEntry {
        format: store::FORMAT_LOG_ENTRY,
        id: Some(log_id_to_proto(&entry.log_id)),
        kind: kind as i32,
        payload,
        crc32c: 0,
    };
    proto.crc32c = entry_crc(&proto);
    proto
}

pub(crate) fn entry_from_proto(entry: store::LogEntry) -> Result<Entry, StoreError> {
    let id = entry.id.ok_or_else(|| StoreError::Corrupt("entry without a position".into()))?;
    let corrupt = |what: String| StoreError::Corrupt(format!("log entry {}: {what}", id.index));
    if entry.crc32c != entry_crc(&entry) {
        return Err(corrupt("checksum mismatch".into()));
    }
    if entry.format != store::FORMAT_LOG_ENTRY {
        return Err(corrupt(format!("unknown format {}", entry.format)));
    }
    let payload = match entry.kind() {
        store::EntryKind::Blank => EntryPayload::Blank,
        store::EntryKind::Command => EntryPayload::Normal(Proposal(entry.payload)),
        store::EntryKind::Membership => {
            let membership = peer::Membership::decode(entry.payload).map_err(|error| corrupt(error.to_string()))?;
            EntryPayload::Membership(membership_from_proto(&membership)?)
        }
        // A kind this release does not know: passing over it would fork the state (design D2).
        store::EntryKind::Unspecified => return Err(corrupt(format!("unknown kind {}", entry.kind))),
    };
    Ok(Entry { log_id: log_id_from_proto(&id), payload })
}

fn entry_crc(entry: &store::LogEntry) -> u32 {
    let id = entry.id.unwrap_or_default();
    let crc = crc32c::crc32c(&id.term.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &id.index.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &entry.kind.to_be_bytes());
    crc32c::crc32c_append(crc, &entry.payload)
}

fn vote_crc(vote: &store::Vote) -> u32 {
    let crc = crc32c::crc32c(&vote.term.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &vote.node_id.to_be_bytes());
    crc32c::crc32c_append(crc, &[u8::from(vote.committed)])
}
