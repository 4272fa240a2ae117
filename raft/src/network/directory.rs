//! The peers of this member: current membership, and before there is one, the members named by the join ticket.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;
use trireme_proto::store::{MemberAddresses, MemberRecord};

use crate::types::Membership;

/// Members by id and by key. Cheap to read; changed only by membership entries and the join.
#[derive(Debug, Default)]
pub(crate) struct PeerDirectory {
    inner: RwLock<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    /// This member.
    self_id: u64,
    members: BTreeMap<u64, MemberRecord>,
    /// From the join answer. They count until the log names a membership with this member in it: those that it replays before are
    /// history, and the leader that it is served by may not have been in them.
    seeds: BTreeMap<u64, MemberRecord>,
    /// New addresses that members have announced, before the log has them. The key is checked on connecting, so a wrong hint
    /// does no harm.
    hints: BTreeMap<u64, MemberAddresses>,
}

impl PeerDirectory {
    pub(crate) fn new(self_id: u64, seeds: BTreeMap<u64, MemberRecord>) -> PeerDirectory {
        PeerDirectory { inner: RwLock::new(Peers { self_id, members: BTreeMap::new(), seeds, hints: BTreeMap::new() }) }
    }

    /// Takes over the effective (latest, perhaps uncommitted) membership.
    pub(crate) fn update(&self, membership: &Membership) {
        {
            // Compared first under the read lock: this runs at every apply, and the membership seldom changes.
            let inner = self.inner.read();
            let mut known = inner.members.iter();
            if membership.nodes().all(|node| known.next() == Some(node)) && known.next().is_none() {
                return;
            }
        }
        let mut members: BTreeMap<u64, MemberRecord> = membership.nodes().map(|(id, record)| (*id, record.clone())).collect();
        let mut inner = self.inner.write();
        // After a restore or a reset the first member's record has no key until that member starts. A member whose snapshot is older than
        // that takes the key from its join ticket.
        for (id, record) in members.iter_mut().filter(|(_, record)| record.spki.is_empty()) {
            let known = inner.members.get(id).filter(|known| !known.spki.is_empty()).or_else(|| inner.seeds.get(id));
            if let Some(known) = known {
                *record = known.clone();
            }
        }
        if !members.is_empty() && inner.members != members {
            let before = std::mem::replace(&mut inner.members, members.clone());
            // What the log says later than a hint is newer than the hint.
            inner.hints.retain(|id, _| before.get(id) == members.get(id));
            if members.contains_key(&inner.self_id) {
                inner.seeds.clear();
            }
        }
    }

    /// Records the address that a member announced itself.
    pub(crate) fn hint(&self, id: u64, addresses: MemberAddresses) {
        let mut inner = self.inner.write();
        if inner.members.contains_key(&id) {
            inner.hints.insert(id, addresses);
        }
    }

    /// The record to connect by: with the address that the member itself gave last.
    pub(crate) fn reach(&self, id: u64) -> Option<MemberRecord> {
        let mut record = self.get(id)?;
        if let Some(addresses) = self.inner.read().hints.get(&id) {
            record.addresses = Some(addresses.clone());
        }
        Some(record)
    }

    pub(crate) fn get(&self, id: u64) -> Option<MemberRecord> {
        let inner = self.inner.read();
        inner.seeds.get(&id).or_else(|| inner.members.get(&id)).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(u64, MemberRecord)> {
        let inner = self.inner.read();
        let peers = if inner.seeds.is_empty() { &inner.members } else { &inner.seeds };
        peers.iter().map(|(id, record)| (*id, record.clone())).collect()
    }

    /// Whether the holder of this key may speak here at all.
    pub(crate) fn knows_key(&self, spki_sha256: &Bytes) -> bool {
        self.all().iter().any(|(_, record)| record.spki == *spki_sha256)
    }

    /// Whether this key is the one of member `id`.
    pub(crate) fn is_key_of(&self, id: u64, spki_sha256: &Bytes) -> bool {
        self.get(id).is_some_and(|record| record.spki == *spki_sha256)
    }
}
