//! Which proposals were applied lately, and with what result: a proposal that is sent again is answered, not applied again.
//!
//! The records lie in a ring of places, one for each entry of the log: to remember a proposal is one write, which also forgets the one
//! before, and nothing is ever deleted. Which id stands where is kept in memory and read from the ring at start. What a lookup finds follows
//! from the entries applied alone, not from what is still in memory or on disk.
//!
//! The number of places bounds how many proposals may be under way: a proposal that is appended more entries than that after it was made
//! is refused. [`WIDE_LEVEL`] made the ring wider. Records that are in the narrow ring by then stay there, under its own rule. For
//! example, if entry 5000 raises the level, entries 905 to 4999 are in the narrow ring and are remembered for 4096 entries each; entry
//! 5000 and those after it are in the wide one and are remembered for 65,536. The keys of the two differ in length.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use trireme_proto::store::ProposalRecord;

use super::read;
use crate::StoreError;
use crate::engine::{Read, Table};

/// Proposal ids are remembered for so many log entries, below [`WIDE_LEVEL`].
pub const PROPOSAL_WINDOW: u64 = 4096;
/// Proposal ids are remembered for so many log entries, from [`WIDE_LEVEL`] on.
pub const WIDE_PROPOSAL_WINDOW: u64 = 65_536;
/// The feature level that remembers more of them.
pub const WIDE_LEVEL: u32 = 2;

/// Where a proposal is remembered, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ring {
    Narrow,
    Wide,
}

/// A proposal's id as it is kept in memory: 16 bytes as they are, anything else hashed.
type Id = [u8; 16];

/// Ids and the entries that carried them.
#[derive(Default)]
pub(crate) struct Proposals {
    by_id: HashMap<Id, u64>,
    in_order: VecDeque<(u64, Id)>,
    /// The last entry that is in the narrow ring.
    last_narrow: Option<u64>,
}

/// The same for the entries of one batch, until that is written.
#[derive(Default)]
pub(crate) struct Fresh {
    by_id: HashMap<Id, u64>,
    in_order: Vec<(u64, Id)>,
    last_narrow: Option<u64>,
}

/// For how many log entries a cluster of this feature level remembers proposals.
pub(crate) fn window(feature_level: u32) -> u64 {
    Ring::of(feature_level).window()
}

fn to_id(id: &[u8]) -> Id {
    Id::try_from(id).unwrap_or_else(|_| {
        let mut hashed = Id::default();
        hashed.copy_from_slice(&Sha256::digest(id)[..16]);
        hashed
    })
}

// === impl Ring ===

impl Ring {
    /// The one that is written to.
    pub(super) fn of(feature_level: u32) -> Ring {
        if feature_level >= WIDE_LEVEL { Ring::Wide } else { Ring::Narrow }
    }

    fn window(self) -> u64 {
        match self {
            Ring::Narrow => PROPOSAL_WINDOW,
            Ring::Wide => WIDE_PROPOSAL_WINDOW,
        }
    }

    /// The key of the place for entry `index`.
    pub(super) fn place(self, index: u64) -> Vec<u8> {
        let place = ((index % self.window()) as u16).to_be_bytes();
        match self {
            Ring::Narrow => place.to_vec(),
            Ring::Wide => [&[0], &place[..]].concat(),
        }
    }

    fn of_place(key: &[u8]) -> Ring {
        if key.len() == 2 { Ring::Narrow } else { Ring::Wide }
    }

    /// Whether a proposal of entry `at` is still remembered when entry `index` is applied.
    pub(super) fn remembers(self, at: u64, index: u64) -> bool {
        at + self.window() > index
    }
}

// === impl Proposals ===

impl Proposals {
    /// As the rings in `view` have them.
    pub(crate) fn load(view: &dyn Read) -> Result<Proposals, StoreError> {
        let mut found = Fresh::default();
        let mut places = view.cursor(Table::Proposal, &[], None)?;
        while let Some((key, record)) = places.entry() {
            let ring = Ring::of_place(key);
            let record: ProposalRecord = read::decode("proposal", record)?;
            found.note(ring, record.index, &record.proposal_id);
            places.advance()?;
        }
        found.in_order.sort_unstable();
        let mut proposals = Proposals::default();
        proposals.take(found);
        Ok(proposals)
    }

    /// The batch was written.
    pub(crate) fn take(&mut self, fresh: Fresh) {
        let Some((last, _)) = fresh.in_order.last() else { return };
        let last = *last;
        self.last_narrow = self.last_narrow.max(fresh.last_narrow);
        for (index, id) in fresh.in_order {
            self.by_id.insert(id, index);
            self.in_order.push_back((index, id));
        }
        let narrow = self.last_narrow;
        while let Some((index, id)) = self.in_order.pop_front_if(|(index, _)| !ring_of(*index, narrow).remembers(*index, last)) {
            // It may have been proposed again since.
            if self.by_id.get(&id) == Some(&index) {
                self.by_id.remove(&id);
            }
        }
    }

    /// The entry that carried proposal `id` and its ring, with those of the batch that is being applied.
    pub(super) fn find(&self, fresh: &Fresh, id: &Bytes) -> Option<(u64, Ring)> {
        let id = to_id(id);
        let at = fresh.by_id.get(&id).or_else(|| self.by_id.get(&id)).copied()?;
        Some((at, ring_of(at, self.last_narrow.max(fresh.last_narrow))))
    }

    /// Whether the narrow ring may hold something where entry `index` of the wide one would have been.
    pub(super) fn leaves_narrow(&self, fresh: &Fresh, index: u64) -> bool {
        self.last_narrow.max(fresh.last_narrow).is_some_and(|last| index <= last + PROPOSAL_WINDOW)
    }
}

/// The ring of entry `at`: the narrow one was written to up to `last_narrow`, and never since.
fn ring_of(at: u64, last_narrow: Option<u64>) -> Ring {
    if Some(at) <= last_narrow { Ring::Narrow } else { Ring::Wide }
}

// === impl Fresh ===

impl Fresh {
    pub(super) fn note(&mut self, ring: Ring, index: u64, id: &[u8]) {
        let id = to_id(id);
        self.by_id.insert(id, index);
        self.in_order.push((index, id));
        if ring == Ring::Narrow {
            self.last_narrow = self.last_narrow.max(Some(index));
        }
    }
}
