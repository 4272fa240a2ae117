//! Writes the history while it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use trireme_proto::etcd;

use super::trace::Trace;
use crate::history::{Answer, At, Call, Event, Final, History, Kv, Operation, Said, Watch};

/// The history in the making. Shared by everything in a world.
pub struct Recorder {
    history: Mutex<History>,
    seq: AtomicU64,
    now_ms: AtomicU64,
    trace: Arc<Trace>,
}

// === impl Recorder ===

impl Recorder {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(trace: Arc<Trace>) -> Arc<Recorder> {
        Arc::new(Recorder { history: Mutex::default(), seq: AtomicU64::new(0), now_ms: AtomicU64::new(0), trace })
    }

    /// Time goes on.
    pub fn set_now(&self, ms: u64) {
        self.now_ms.store(ms, Ordering::Relaxed);
    }

    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn at(&self) -> At {
        At { seq: self.seq.fetch_add(1, Ordering::Relaxed), ms: self.now_ms() }
    }

    /// Notes something that is no part of the history.
    pub fn note(&self, line: &str) {
        self.trace.note(self.now_ms(), line);
    }

    /// A call begins. Returns its number.
    pub fn begin(&self, client: &str, call: Call) -> usize {
        let started = self.at();
        self.note(&format!("{client} asks {call:?}"));
        let mut history = self.history.lock();
        history.operations.push(Operation { client: client.to_owned(), call, started, ended: None });
        history.operations.len() - 1
    }

    /// It is answered.
    pub fn end(&self, number: usize, answer: Answer) {
        let at = self.at();
        let mut history = self.history.lock();
        let operation = &mut history.operations[number];
        self.note(&format!("{} gets {answer:?}", operation.client));
        operation.ended = Some((at, answer));
    }

    /// A watch begins. Returns its number.
    pub fn watch(&self, watcher: &str, member: &str, prefix: &str, from: i64) -> usize {
        self.note(&format!("{watcher} watches {prefix} from {from} at {member}"));
        let mut history = self.history.lock();
        let (watcher, member, prefix) = (watcher.to_owned(), member.to_owned(), prefix.to_owned());
        history.watches.push(Watch { watcher, member, prefix, from, said: Vec::new() });
        history.watches.len() - 1
    }

    /// It says something.
    pub fn said(&self, number: usize, said: Said) {
        let at = self.at();
        let mut history = self.history.lock();
        let watch = &mut history.watches[number];
        match &said {
            Said::Batch(upto, events) => self.note(&format!("{} reaches {upto} with {}", watch.watcher, events.len())),
            other => self.note(&format!("{} hears {other:?}", watch.watcher)),
        }
        watch.said.push((at, said));
    }

    /// A member says that it leads.
    pub fn leads(&self, term: u64, node_id: u64) {
        let mut history = self.history.lock();
        let leaders = history.leaders.entry(term).or_default();
        if !leaders.contains(&node_id) {
            leaders.push(node_id);
            self.note(&format!("{node_id} leads term {term}"));
        }
    }

    /// What must never happen has happened.
    pub fn fail(&self, what: String) {
        self.note(&what);
        self.history.lock().failures.push(what);
    }

    /// Whether that was so.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !self.history.lock().failures.is_empty()
    }

    /// A member's end.
    pub fn finish(&self, end: Final) {
        self.history.lock().finals.push(end);
    }

    /// The store has other writers, whose operations the history does not contain.
    pub fn others_write(&self) {
        self.history.lock().shared = true;
    }

    /// What there is.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }
}

/// A record as histories have it.
#[must_use]
pub fn kv(kv: &etcd::KeyValue) -> Kv {
    Kv {
        key: String::from_utf8_lossy(&kv.key).into_owned(),
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

/// An event as histories have it.
#[must_use]
pub fn event(event: &etcd::Event) -> Event {
    Event {
        kv: event.kv.as_ref().map(kv).unwrap_or_default(),
        deleted: event.r#type() == etcd::event::EventType::Delete,
        before: event.prev_kv.as_ref().map(kv),
    }
}
