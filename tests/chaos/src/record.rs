//! The history of the store, merged from the events of all watches.
//!
//! Watches overlap: what one missed while its member was cut off or restarted, another has seen. Two watches that report different events for
//! one revision are a violation.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History, Kv, Said};

/// The changes, by revision, and the keys through time.
#[derive(Clone, Debug, Default)]
pub struct Record {
    changes: BTreeMap<i64, BTreeMap<String, Event>>,
    /// Each key's states: from which revision on it was what.
    keys: BTreeMap<String, Vec<(i64, Option<Kv>)>>,
    contradictions: Vec<String>,
}

// === impl Record ===

impl Record {
    /// From all watches of a history.
    #[must_use]
    pub fn of(history: &History) -> Record {
        let mut record = Record::default();
        for watch in &history.watches {
            for (_, said) in &watch.said {
                let Said::Batch(_, events) = said else { continue };
                for event in events {
                    record.take(event, &watch.watcher);
                }
            }
        }
        for (revision, events) in &record.changes {
            for (key, event) in events {
                let state = (!event.deleted).then(|| event.kv.clone());
                record.keys.entry(key.clone()).or_default().push((*revision, state));
            }
        }
        record
    }

    fn take(&mut self, event: &Event, watcher: &str) {
        let known = self.changes.entry(event.kv.modified).or_default();
        match known.get_mut(&event.kv.key) {
            None => {
                known.insert(event.kv.key.clone(), event.clone());
            }
            Some(known) if known.kv == event.kv && known.deleted == event.deleted => {
                // At the compaction floor a late watch gets no previous value.
                known.before = known.before.take().or_else(|| event.before.clone());
            }
            Some(known) => self.contradictions.push(format!("{watcher} saw {event:?}, another watch {known:?}")),
        }
    }

    /// Revisions of which watches told different things.
    #[must_use]
    pub fn contradictions(&self) -> &[String] {
        &self.contradictions
    }

    /// All changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = (i64, &BTreeMap<String, Event>)> {
        self.changes.iter().map(|(revision, events)| (*revision, events))
    }

    /// The changes of one revision.
    #[must_use]
    pub fn at(&self, revision: i64) -> Option<&BTreeMap<String, Event>> {
        self.changes.get(&revision)
    }

    /// The changes of keys with `prefix` after `after` up to `upto`.
    pub fn between<'a>(&'a self, prefix: &'a str, after: i64, upto: i64) -> impl Iterator<Item = &'a Event> {
        let range = (after < upto).then(|| self.changes.range(after + 1..=upto));
        range.into_iter().flatten().flat_map(|(_, events)| events.values()).filter(move |event| event.kv.key.starts_with(prefix))
    }

    /// A key as it was at a revision.
    #[must_use]
    pub fn key_at(&self, key: &str, revision: i64) -> Option<&Kv> {
        let states = self.keys.get(key)?;
        let after = states.partition_point(|(from, _)| *from <= revision);
        states[..after].last()?.1.as_ref()
    }

    /// All keys with `prefix` as they were at a revision, in order.
    #[must_use]
    pub fn keys_at(&self, prefix: &str, revision: i64) -> Vec<Kv> {
        let keys: BTreeSet<&String> = self.keys.keys().filter(|key| key.starts_with(prefix)).collect();
        keys.into_iter().filter_map(|key| self.key_at(key, revision)).cloned().collect()
    }

    /// The last revision.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.changes.keys().next_back().copied().unwrap_or(0)
    }

    /// Where each value was written.
    #[must_use]
    pub fn values(&self) -> BTreeMap<&str, Vec<(i64, &str)>> {
        let mut values: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
        for (revision, events) in &self.changes {
            for event in events.values().filter(|event| !event.deleted) {
                values.entry(&event.kv.value).or_default().push((*revision, &event.kv.key));
            }
        }
        values
    }
}
