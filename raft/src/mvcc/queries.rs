//! Reads of leases and of the cluster's own records: members, sealed keys, compaction holders.

use std::time::{Duration, Instant};

use trireme_proto::store::{HolderRecord, LeaseCheckpointCommand, MemberRecord, SealedRecord};

use super::lease::LeaseClock;
use super::{ExpiredLease, LeaseInfo, StateMachine, compact, lease, members};
use crate::StoreError;

// === impl StateMachine ===

impl StateMachine {
    /// Leases that ran out; the leader proposes their revocation with the generation given.
    #[must_use]
    pub fn expired_leases(&self, now: Instant) -> Vec<ExpiredLease> {
        self.writer.lock().leases.expired(now)
    }

    /// When to look for expired leases next.
    #[must_use]
    pub fn next_lease_deadline(&self) -> Option<Instant> {
        self.writer.lock().leases.next_deadline()
    }

    /// Starts all leases anew with their persisted remaining TTL: what a new leader does first.
    pub fn restart_leases(&self, now: Instant) -> Result<(), StoreError> {
        let mut writer = self.writer.lock();
        writer.leases = self.read(|view| LeaseClock::restart(view, now))?;
        Ok(())
    }

    /// Remaining TTLs worth persisting: those that fell by `step` since they were last.
    #[must_use]
    pub fn lease_checkpoints(&self, now: Instant, step: Duration) -> LeaseCheckpointCommand {
        self.writer.lock().leases.checkpoints(now, step)
    }

    /// What is known of a lease.
    pub fn lease(&self, id: i64, now: Instant) -> Result<Option<LeaseInfo>, StoreError> {
        let writer = self.writer.lock();
        self.read(|view| {
            let Some(record) = lease::lookup(view, id)? else { return Ok(None) };
            let remaining_secs = writer.leases.remaining_secs(id, now);
            Ok(Some(LeaseInfo { id, ttl_secs: record.ttl_secs, remaining_secs, keys: lease::attached(view, id)? }))
        })
    }

    /// Ids of all leases.
    pub fn leases(&self) -> Result<Vec<i64>, StoreError> {
        Ok(self.read(lease::all)?.into_iter().map(|record| record.id).collect())
    }

    /// The members' records, by id.
    pub fn members(&self) -> Result<Vec<MemberRecord>, StoreError> {
        self.read(members::all)
    }

    /// Whether a member had this id and has it no more.
    pub fn had_member(&self, id: u64) -> Result<bool, StoreError> {
        // In this order: a record allocated before the counter was read is seen.
        let next = self.writer.lock().head.next_member_id;
        members::had(self.hub.engine().view().as_ref(), next, id)
    }

    /// A sealed key and its version.
    pub fn sealed(&self, name: &str) -> Result<Option<SealedRecord>, StoreError> {
        self.read(|view| members::sealed(view, name))
    }

    /// The holders that keep history from being compacted.
    pub fn holders(&self) -> Result<Vec<HolderRecord>, StoreError> {
        self.read(compact::all)
    }
}
