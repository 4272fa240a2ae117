//! Reads of a log as it was at one moment.

use std::collections::{VecDeque, btree_map};
use std::sync::Arc;

use bytes::Bytes;

use super::contents::{Contents, Place};
use super::record::Change;
use super::segment::Segments;
use crate::StoreError;
use crate::engine::{Cursor, Read, Table};

/// See the module. Segments that go meanwhile stay readable: their files are open.
pub(super) struct WalView {
    contents: Arc<Contents>,
    segments: Arc<Segments>,
}

/// A cursor over entries.
struct EntryCursor<'a> {
    view: &'a WalView,
    /// The entry to read next, and the end of the range.
    next: u64,
    end: u64,
    /// Where to read on, and the index from which on another place is the right one.
    place: Option<(Place, u64)>,
    /// Entries of the record that was read last, from `next` on.
    read: VecDeque<(u64, Bytes)>,
    current: Option<([u8; 8], Bytes)>,
}

/// A cursor over marks.
struct MarkCursor<'a> {
    marks: &'a std::collections::BTreeMap<Vec<u8>, Bytes>,
    range: btree_map::Range<'a, Vec<u8>, Bytes>,
    current: Option<(&'a Vec<u8>, &'a Bytes)>,
    end: Option<Vec<u8>>,
}

/// The index that a bound of a range stands for: the first entry whose key is not before it.
fn index_from(bound: &[u8]) -> u64 {
    let mut padded = [0; 8];
    let length = bound.len().min(8);
    padded[..length].copy_from_slice(&bound[..length]);
    // A longer bound lies behind the key that it begins with.
    u64::from_be_bytes(padded).saturating_add(u64::from(bound.len() > 8))
}

// === impl WalView ===

impl WalView {
    pub(super) fn new(contents: Arc<Contents>, segments: Arc<Segments>) -> WalView {
        WalView { contents, segments }
    }

    fn entries(&self, start: &[u8], end: Option<&[u8]>) -> Result<EntryCursor<'_>, StoreError> {
        let end = end.map_or(self.contents.next, |end| index_from(end).min(self.contents.next));
        let next = index_from(start).max(self.contents.first);
        let mut cursor = EntryCursor { view: self, next, end, place: None, read: VecDeque::new(), current: None };
        cursor.advance()?;
        Ok(cursor)
    }
}

impl Read for WalView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match (table, <[u8; 8]>::try_from(key)) {
            (Table::LogMeta, _) => Ok(self.contents.marks.get(key).cloned()),
            (Table::Entry, Ok(index)) => {
                let after = u64::from_be_bytes(index).saturating_add(1).to_be_bytes();
                Ok(self.entries(key, Some(&after))?.current.map(|(_, value)| value))
            }
            _ => Ok(None),
        }
    }

    fn cursor<'a>(&'a self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<Box<dyn Cursor + 'a>, StoreError> {
        match table {
            Table::Entry => Ok(Box::new(self.entries(start, end)?)),
            Table::LogMeta => {
                let marks = &self.contents.marks;
                let mut cursor = MarkCursor { marks, range: marks.range(Vec::new()..), current: None, end: end.map(<[u8]>::to_vec) };
                cursor.seek(start)?;
                Ok(Box::new(cursor))
            }
            _ => {
                let marks = &self.contents.marks;
                Ok(Box::new(MarkCursor { marks, range: marks.range(Vec::new()..Vec::new()), current: None, end: None }))
            }
        }
    }

    fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        match table {
            Table::Entry if self.contents.first < self.contents.next => {
                let key = (self.contents.next - 1).to_be_bytes();
                Ok(self.get(table, &key)?.map(|value| (key.to_vec(), value)))
            }
            Table::LogMeta => Ok(self.contents.marks.last_key_value().map(|(key, value)| (key.clone(), value.clone()))),
            _ => Ok(None),
        }
    }
}

// === impl EntryCursor ===

impl EntryCursor<'_> {
    /// Reads records until one has the entry `next`.
    fn fill(&mut self) -> Result<(), StoreError> {
        let missing = |index: u64| StoreError::Corrupt(format!("entry {index} of the log cannot be found"));
        while self.read.is_empty() {
            let (place, upto) = match self.place.filter(|(_, upto)| self.next < *upto) {
                Some(place) => place,
                None => self.view.contents.place_of(self.next).ok_or_else(|| missing(self.next))?,
            };
            let (changes, after) = self.view.segments.read(place)?.ok_or_else(|| missing(self.next))?;
            self.place = Some((after, upto));
            let mut wanted = self.next;
            for change in changes {
                if let Change::Entry(index, value) = change
                    && index == wanted
                    && index < upto
                {
                    self.read.push_back((index, value));
                    wanted += 1;
                }
            }
        }
        Ok(())
    }
}

impl Cursor for EntryCursor<'_> {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.current.as_ref().map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        self.current = None;
        if self.next < self.end {
            self.fill()?;
            self.current = self.read.pop_front().map(|(index, value)| (index.to_be_bytes(), value));
            self.next += 1;
        }
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        let to = index_from(key);
        let at = self.current.as_ref().map_or(self.next, |(key, _)| u64::from_be_bytes(*key));
        if to <= at && self.current.is_some() {
            return Ok(());
        }
        self.next = to.max(at);
        self.place = None;
        self.read.clear();
        self.advance()
    }
}

// === impl MarkCursor ===

impl Cursor for MarkCursor<'_> {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.current.map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        let end = self.end.as_ref();
        self.current = self.range.next().filter(|(key, _)| end.is_none_or(|end| *key < end));
        Ok(())
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.range = self.marks.range(key.to_vec()..);
        self.advance()
    }
}
