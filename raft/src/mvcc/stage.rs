//! The writes of one apply batch over the engine's view: what later commands of the batch read, and what
//! becomes the one `WriteBatch`.
//!
//! Owns no rule of the data model. A command that fails is undone with [`Stage::rollback`].

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use bytes::Bytes;
use trireme_proto::etcd;
use trireme_proto::store::StateHead;

use super::latest::Latest;
use super::proposals::{Fresh, Proposals};
use super::read;
use crate::StoreError;
use crate::engine::{Cursor, Read, Table, Write, WriteBatch, full_end, full_key};

/// Uncommitted writes over a view.
pub(crate) struct Stage<'a> {
    base: &'a dyn Read,
    /// Some of what `base` holds.
    latest: &'a Latest,
    /// What was proposed before this batch.
    pub(crate) proposals: &'a Proposals,
    /// What is proposed in it.
    pub(crate) fresh: Fresh,
    writes: BTreeMap<Vec<u8>, Option<Bytes>>,
    undo: Vec<(Vec<u8>, Option<Option<Bytes>>)>,
    /// The head as the commands so far left it.
    pub(crate) head: StateHead,
    saved_head: StateHead,
}

struct StageCursor<'a> {
    base: Box<dyn Cursor + 'a>,
    writes: &'a BTreeMap<Vec<u8>, Option<Bytes>>,
    range: btree_map::Range<'a, Vec<u8>, Option<Bytes>>,
    staged: Option<(&'a Vec<u8>, &'a Option<Bytes>)>,
    table: Table,
    end: Vec<u8>,
}

// === impl Stage ===

impl<'a> Stage<'a> {
    pub(crate) fn new(base: &'a dyn Read, latest: &'a Latest, proposals: &'a Proposals, head: StateHead) -> Stage<'a> {
        Stage {
            base,
            latest,
            proposals,
            fresh: Fresh::default(),
            writes: BTreeMap::new(),
            undo: Vec::new(),
            saved_head: head.clone(),
            head,
        }
    }

    /// The current record of `key`.
    pub(crate) fn current(&self, key: &Bytes) -> Result<Option<etcd::KeyValue>, StoreError> {
        if !self.writes.contains_key(&full_key(Table::Live, key))
            && let Some((kv, _)) = self.latest.get(key)
        {
            return Ok(Some(kv));
        }
        let Some(version) = read::live(self, key)? else { return Ok(None) };
        let value = read::value(self, key, version.mod_revision)?;
        Ok(Some(read::key_value(key.clone(), &version, value)))
    }

    /// Sets the savepoint that [`Stage::rollback`] returns to.
    pub(crate) fn savepoint(&mut self) {
        self.undo.clear();
        self.saved_head = self.head.clone();
    }

    /// Forgets every write since the last savepoint.
    pub(crate) fn rollback(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(write) => self.writes.insert(key, write),
                None => self.writes.remove(&key),
            };
        }
        self.head = self.saved_head.clone();
    }

    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: impl Into<Bytes>) {
        self.write(full_key(table, key), Some(value.into()));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.write(full_key(table, key), None);
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        let before = self.writes.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// The writes as one batch, the head, and the proposals to remember once it is written.
    pub(crate) fn finish(self) -> (WriteBatch, StateHead, Fresh) {
        let mut batch = WriteBatch::new();
        for (key, value) in self.writes {
            batch.push(match value {
                Some(value) => Write::Put(key, value),
                None => Write::Delete(key),
            });
        }
        (batch, self.head, self.fresh)
    }
}

impl Read for Stage<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.writes.get(&full_key(table, key)) {
            Some(staged) => Ok(staged.clone()),
            None => self.base.get(table, key),
        }
    }

    fn cursor<'c>(&'c self, table: Table, start: &[u8], end: Option<&[u8]>) -> Result<Box<dyn Cursor + 'c>, StoreError> {
        let base = self.base.cursor(table, start, end)?;
        let end = full_end(table, end);
        if self.writes.range(full_key(table, start)..).next().is_none_or(|(key, _)| *key >= end) {
            return Ok(base);
        }
        let mut cursor =
            StageCursor { base, writes: &self.writes, range: self.writes.range(Vec::new()..Vec::new()), staged: None, table, end };
        cursor.seek_staged(full_key(table, start));
        cursor.skip_deleted()?;
        Ok(Box::new(cursor))
    }

    fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        let mut last = None;
        let mut cursor = self.cursor(table, &[], None)?;
        while let Some((key, value)) = cursor.entry() {
            last = Some((key.to_vec(), Bytes::copy_from_slice(value)));
            cursor.advance()?;
        }
        Ok(last)
    }
}

// === impl StageCursor ===

impl StageCursor<'_> {
    fn seek_staged(&mut self, start: Vec<u8>) {
        self.range = if start < self.end {
            self.writes.range::<Vec<u8>, _>((Bound::Included(start), Bound::Excluded(self.end.clone())))
        } else {
            self.writes.range(Vec::new()..Vec::new())
        };
        self.staged = self.range.next();
    }

    /// Moves to the next key that exists: a staged write hides the base's entry of the same key.
    fn skip_deleted(&mut self) -> Result<(), StoreError> {
        while let Some((key, value)) = self.staged {
            match self.base.entry() {
                Some((base, _)) if base < &key[1..] => return Ok(()),
                Some((base, _)) if base == &key[1..] => self.base.advance()?,
                _ => {}
            }
            if value.is_some() {
                return Ok(());
            }
            self.staged = self.range.next();
        }
        Ok(())
    }
}

impl Cursor for StageCursor<'_> {
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        let base = self.base.entry();
        match (self.staged, base) {
            (Some((key, Some(value))), Some((base, _))) if &key[1..] < base => Some((&key[1..], value.as_ref())),
            (Some((key, Some(value))), None) => Some((&key[1..], value.as_ref())),
            _ => base,
        }
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        let staged_first = match (self.staged, self.base.entry()) {
            (Some((key, _)), Some((base, _))) => &key[1..] < base,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if staged_first {
            self.staged = self.range.next();
        } else {
            self.base.advance()?;
        }
        self.skip_deleted()
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.base.seek(key)?;
        self.seek_staged(full_key(self.table, key));
        self.skip_deleted()
    }
}
