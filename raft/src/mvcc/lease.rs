//! Leases: replicated records, and the local clock that finds the expired ones.
//!
//! Replicated is what a lease is (id, TTL, remaining TTL as of its last refresh or checkpoint) and which keys
//! hang on it. Time is not: each member counts from its own monotonic clock since it applied the refresh, and
//! only the leader acts on it, by *proposing* the revoke. A new leader restarts every lease with its persisted
//! remaining TTL, so a lease may live longer than asked for, never shorter. No wall clock is compared.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::store::{
    HolderRecord, LeaseCheckpointCommand, LeaseGrantCommand, LeaseKeepAliveCommand, LeaseRecord, LeaseResult, LeaseRevokeCommand,
    lease_checkpoint_command,
};

use super::compact;
use super::keys::{attachment_end, attachment_key, lease_key};
use super::read;
use super::stage::Stage;
use super::write::Writer;
use crate::StoreError;
use crate::engine::{Read, Table, WriteBatch};
use crate::mutant;

/// etcd's limit.
const MAX_TTL_SECS: i64 = 9_000_000_000;

/// A lease that ran out on this member's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpiredLease {
    /// Its id.
    pub id: i64,
    /// For `LeaseRevokeCommand.if_generation`, so that a keep-alive on its way wins.
    pub generation: u64,
}

/// What is known of a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseInfo {
    /// Its id.
    pub id: i64,
    /// Granted.
    pub ttl_secs: i64,
    /// Left, on this member's clock; meaningful on the leader.
    pub remaining_secs: i64,
    /// Keys attached.
    pub keys: Vec<Bytes>,
}

/// What happened to a lease.
#[derive(Debug)]
pub(crate) enum LeaseEffect {
    /// Granted or refreshed: its time starts again.
    Restarted(LeaseRecord),
    Gone(i64),
}

/// Deadlines on the local clock. Not replicated.
#[derive(Default)]
pub(crate) struct LeaseClock {
    running: HashMap<i64, Running>,
}

struct Running {
    record: LeaseRecord,
    deadline: Instant,
}

pub(crate) fn lookup(read: &dyn Read, id: i64) -> Result<Option<LeaseRecord>, StoreError> {
    read.get(Table::Lease, &lease_key(id))?.map(|bytes| read::decode("lease", &bytes)).transpose()
}

fn require(read: &dyn Read, id: i64) -> Result<LeaseRecord, StoreError> {
    lookup(read, id)?.ok_or(StoreError::LeaseNotFound(id))
}

fn store(stage: &mut Stage<'_>, record: &LeaseRecord) {
    stage.put(Table::Lease, &lease_key(record.id), record.encode_to_vec());
}

/// Writes a lease with its whole time again.
pub(crate) fn refresh(batch: &mut WriteBatch, mut record: LeaseRecord) {
    record.remaining_ttl_secs = record.ttl_secs;
    batch.put(Table::Lease, &lease_key(record.id), record.encode_to_vec());
}

fn next_generation(stage: &mut Stage<'_>) -> u64 {
    stage.head.next_lease_generation += 1;
    stage.head.next_lease_generation
}

pub(crate) fn grant(stage: &mut Stage<'_>, grant: &LeaseGrantCommand, effects: &mut Vec<LeaseEffect>) -> Result<LeaseResult, StoreError> {
    if grant.id == 0 {
        return Err(StoreError::Invalid("lease id is not provided".into()));
    }
    if grant.ttl_secs < 1 || grant.ttl_secs > MAX_TTL_SECS {
        return Err(StoreError::Invalid(format!("lease TTL must be 1..={MAX_TTL_SECS} seconds, not {}", grant.ttl_secs)));
    }
    if lookup(stage, grant.id)?.is_some() {
        return Err(StoreError::LeaseExists(grant.id));
    }
    let record =
        LeaseRecord { id: grant.id, ttl_secs: grant.ttl_secs, remaining_ttl_secs: grant.ttl_secs, generation: next_generation(stage) };
    store(stage, &record);
    effects.push(LeaseEffect::Restarted(record));
    Ok(LeaseResult { id: grant.id, ttl_secs: grant.ttl_secs })
}

pub(crate) fn keep_alive(
    stage: &mut Stage<'_>,
    keep_alive: &LeaseKeepAliveCommand,
    effects: &mut Vec<LeaseEffect>,
) -> Result<LeaseResult, StoreError> {
    let mut record = require(stage, keep_alive.id)?;
    record.remaining_ttl_secs = record.ttl_secs;
    record.generation = next_generation(stage);
    store(stage, &record);
    let result = LeaseResult { id: record.id, ttl_secs: record.ttl_secs };
    effects.push(LeaseEffect::Restarted(record));
    Ok(result)
}

/// Deletes the lease's keys in one revision, in key order, then the lease and the holders that live with it.
pub(crate) fn revoke(
    stage: &mut Stage<'_>,
    writer: &mut Writer,
    revoke: &LeaseRevokeCommand,
    effects: &mut Vec<LeaseEffect>,
) -> Result<LeaseResult, StoreError> {
    let record = require(stage, revoke.id)?;
    if revoke.if_generation != 0 && revoke.if_generation != record.generation {
        return Err(StoreError::Conflict(format!("lease {} was kept alive", revoke.id)));
    }
    for key in attached(stage, revoke.id)? {
        if let Some(previous) = stage.current(&key)? {
            writer.delete(stage, previous);
        }
    }
    stage.delete(Table::Lease, &lease_key(revoke.id));
    let holders = holders_of(stage, revoke.id)?;
    for name in &holders {
        stage.delete(Table::Holder, name);
    }
    if !holders.is_empty() {
        compact::raise_floor(stage)?;
    }
    effects.push(LeaseEffect::Gone(revoke.id));
    Ok(LeaseResult { id: record.id, ttl_secs: record.ttl_secs })
}

/// Persists remaining TTLs. A lease that was refreshed meanwhile, or is gone, is passed over.
pub(crate) fn checkpoint(stage: &mut Stage<'_>, checkpoint: &LeaseCheckpointCommand) -> Result<(), StoreError> {
    for entry in &checkpoint.leases {
        if let Some(mut record) = lookup(stage, entry.id)?
            && record.generation == entry.generation
        {
            record.remaining_ttl_secs = entry.remaining_ttl_secs.clamp(1, record.ttl_secs);
            store(stage, &record);
        }
    }
    Ok(())
}

pub(crate) fn attached(read: &dyn Read, id: i64) -> Result<Vec<Bytes>, StoreError> {
    let start = attachment_key(id, &[]);
    let mut keys = Vec::new();
    let mut cursor = read.cursor(Table::LeaseKey, &start, attachment_end(id).as_deref())?;
    while let Some((key, _)) = cursor.entry() {
        keys.push(Bytes::copy_from_slice(&key[start.len()..]));
        cursor.advance()?;
    }
    Ok(keys)
}

fn holders_of(read: &dyn Read, lease: i64) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut names = Vec::new();
    let mut cursor = read.cursor(Table::Holder, &[], None)?;
    while let Some((name, record)) = cursor.entry() {
        if read::decode::<HolderRecord>("holder", record)?.lease == lease {
            names.push(name.to_vec());
        }
        cursor.advance()?;
    }
    Ok(names)
}

pub(crate) fn all(read: &dyn Read) -> Result<Vec<LeaseRecord>, StoreError> {
    let mut leases = Vec::new();
    let mut cursor = read.cursor(Table::Lease, &[], None)?;
    while let Some((_, record)) = cursor.entry() {
        leases.push(read::decode("lease", record)?);
        cursor.advance()?;
    }
    Ok(leases)
}

// === impl LeaseClock ===

impl LeaseClock {
    /// Starts every lease anew with its persisted remaining TTL.
    pub(crate) fn restart(read: &dyn Read, now: Instant) -> Result<LeaseClock, StoreError> {
        let mut clock = LeaseClock::default();
        for mut record in all(read)? {
            if mutant::on("lease-time-forgotten") {
                record.remaining_ttl_secs = 0;
            }
            clock.start(record, now);
        }
        Ok(clock)
    }

    fn start(&mut self, record: LeaseRecord, now: Instant) {
        let remaining = Duration::from_secs(u64::try_from(record.remaining_ttl_secs).unwrap_or(0));
        let deadline = now.checked_add(remaining).unwrap_or(now);
        self.running.insert(record.id, Running { record, deadline });
    }

    pub(crate) fn observe(&mut self, effects: Vec<LeaseEffect>, now: Instant) {
        for effect in effects {
            match effect {
                LeaseEffect::Restarted(record) => self.start(record, now),
                LeaseEffect::Gone(id) => {
                    self.running.remove(&id);
                }
            }
        }
    }

    /// Leases that ran out, in order of their ids.
    pub(crate) fn expired(&self, now: Instant) -> Vec<ExpiredLease> {
        let mut expired: Vec<ExpiredLease> = self
            .running
            .values()
            .filter(|running| running.deadline <= now)
            .map(|running| ExpiredLease { id: running.record.id, generation: running.record.generation })
            .collect();
        expired.sort_by_key(|lease| lease.id);
        expired
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.running.values().map(|running| running.deadline).min()
    }

    pub(crate) fn remaining_secs(&self, id: i64, now: Instant) -> i64 {
        let remaining = self.running.get(&id).map_or(Duration::ZERO, |running| running.deadline.saturating_duration_since(now));
        i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX)
    }

    /// Leases whose remaining TTL has fallen by `step` or more since it was persisted.
    pub(crate) fn checkpoints(&self, now: Instant, step: Duration) -> LeaseCheckpointCommand {
        let step_secs = i64::try_from(step.as_secs()).unwrap_or(i64::MAX);
        let mut leases: Vec<lease_checkpoint_command::Entry> = self
            .running
            .values()
            .filter_map(|running| {
                let remaining_ttl_secs = self.remaining_secs(running.record.id, now);
                (running.record.remaining_ttl_secs - remaining_ttl_secs >= step_secs).then_some(lease_checkpoint_command::Entry {
                    id: running.record.id,
                    remaining_ttl_secs,
                    generation: running.record.generation,
                })
            })
            .collect();
        leases.sort_by_key(|entry| entry.id);
        LeaseCheckpointCommand { leases }
    }
}
