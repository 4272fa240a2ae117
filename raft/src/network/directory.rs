//! The peers this member talks to and listens to: current membership, and before there is one, what the join said.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;
use trireme_proto::store::MemberRecord;

use crate::types::Membership;

/// Who is who. Cheap to ask, changed only by membership entries and the join.
#[derive(Debug, Default)]
pub(crate) struct PeerDirectory {
    inner: RwLock<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    members: BTreeMap<u64, MemberRecord>,
    /// From the join answer: valid until the log names a membership.
    seeds: BTreeMap<u64, MemberRecord>,
}

impl PeerDirectory {
    pub(crate) fn new(seeds: BTreeMap<u64, MemberRecord>) -> PeerDirectory {
        PeerDirectory { inner: RwLock::new(Peers { members: BTreeMap::new(), seeds }) }
    }

    /// Takes over the effective (latest, perhaps uncommitted) membership.
    pub(crate) fn update(&self, membership: &Membership) {
        let members: BTreeMap<u64, MemberRecord> =
            membership.nodes().map(|(id, record)| (*id, record.clone())).collect();
        let mut inner = self.inner.write();
        if !members.is_empty() && inner.members != members {
            inner.members = members;
        }
    }

    pub(crate) fn get(&self, id: u64) -> Option<MemberRecord> {
        let inner = self.inner.read();
        inner.members.get(&id).or_else(|| inner.seeds.get(&id).filter(|_| inner.members.is_empty())).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(u64, MemberRecord)> {
        let inner = self.inner.read();
        let peers = if inner.members.is_empty() { &inner.seeds } else { &inner.members };
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
