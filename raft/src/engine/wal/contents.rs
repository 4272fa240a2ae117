//! What a log holds, as far as it is kept in memory: the marks, the range of entries, and where to look for them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::MARK_BYTES;
use super::record::Change;
use crate::StoreError;

/// A place in the log: a payload offset of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The record in which an entry is, and the first of its kind there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub(super) index: u64,
    pub(super) at: Place,
}

/// See the module.
///
/// Entries from a mark's index up to the next mark's are found by reading records from the mark's place on. So a truncation needs a mark of its
/// own: records before it hold entries of the same indexes that do not count any more.
#[derive(Clone, Default, Debug)]
pub(super) struct Contents {
    pub(super) marks: BTreeMap<Vec<u8>, Bytes>,
    /// The first entry; equal to `next` where there is none.
    pub(super) first: u64,
    /// The index after the last entry.
    pub(super) next: u64,
    places: VecDeque<Mark>,
    /// The next entry gets a place whatever the distance.
    after_cut: bool,
}

/// The range of entries, to check a write before it is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    first: u64,
    next: u64,
}

// === impl Range ===

impl Range {
    /// What the range is after `change`.
    ///
    /// # Errors
    /// An entry that does not follow the last one.
    pub(super) fn after(self, change: &Change) -> Result<Range, StoreError> {
        let Range { first, next } = self;
        Ok(match *change {
            Change::Entry(index, _) if first == next => Range { first: index, next: index + 1 },
            Change::Entry(index, _) if index == next => Range { first, next: index + 1 },
            Change::Entry(index, _) => return Err(StoreError::Corrupt(format!("entry {index} does not follow entry {}", next - 1))),
            Change::CutEnd(from) => Range { first, next: next.min(from.max(first)) },
            Change::CutStart(to) => Range { first: first.max(to.min(next)), next },
            Change::Set(..) | Change::Unset(_) => self,
        })
    }

    /// What removes the entry `index`, if it is the first or the last one.
    pub(super) fn without(self, index: u64) -> Option<Change> {
        match index {
            _ if index < self.first || index >= self.next => None,
            _ if index + 1 == self.next => Some(Change::CutEnd(index)),
            _ => (index == self.first).then_some(Change::CutStart(index + 1)),
        }
    }
}

// === impl Contents ===

impl Contents {
    pub(super) fn range(&self) -> Range {
        Range { first: self.first, next: self.next }
    }

    /// Applies the changes of a record at `at`.
    ///
    /// # Errors
    /// As [`Range::after`].
    pub(super) fn apply(&mut self, changes: &[Change], at: Place) -> Result<(), StoreError> {
        for change in changes {
            let Range { first, next } = self.range().after(change)?;
            match change {
                Change::Entry(index, _) => self.note(*index, at),
                Change::CutEnd(from) => {
                    while self.places.pop_back_if(|mark| mark.index >= *from).is_some() {}
                    self.after_cut = true;
                }
                Change::Set(key, value) => drop(self.marks.insert(key.clone(), value.clone())),
                Change::Unset(key) => drop(self.marks.remove(key)),
                Change::CutStart(_) => {}
            }
            (self.first, self.next) = (first, next);
            if first == next {
                self.places.clear();
            }
            // The place before the first entry is needed, those before that are not.
            while self.places.get(1).is_some_and(|second| second.index <= first) {
                self.places.pop_front();
            }
        }
        Ok(())
    }

    fn note(&mut self, index: u64, at: Place) {
        let near = |last: &Mark| last.at.segment == at.segment && at.offset < last.at.offset + MARK_BYTES;
        if self.after_cut || !self.places.back().is_some_and(near) {
            self.places.push_back(Mark { index, at });
            self.after_cut = false;
        }
    }

    /// Where to look for the entry `index`, and the index from which on another place is the right one.
    pub(super) fn place_of(&self, index: u64) -> Option<(Place, u64)> {
        let after = self.places.partition_point(|mark| mark.index <= index);
        let mark = self.places.get(after.checked_sub(1)?)?;
        Some((mark.at, self.places.get(after).map_or(self.next, |next| next.index)))
    }

    /// The oldest place that is still needed.
    pub(super) fn first_place(&self) -> Option<Place> {
        self.places.front().map(|mark| mark.at)
    }
}
