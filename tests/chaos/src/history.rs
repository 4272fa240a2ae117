//! What clients saw: every operation with its beginning, its end and its outcome, and everything watches said.
//!
//! Owns the vocabulary only. An [`At`] is a place in the order in which things really happened, so "ended before it
//! began" is a comparison; the milliseconds beside it are for leases and for people.

use std::collections::BTreeMap;

/// When something happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct At {
    /// Its place among all that was recorded.
    pub seq: u64,
    /// Milliseconds since the beginning.
    pub ms: u64,
}

/// A key's record, as it was read or as an event brought it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Kv {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Revision of its creation.
    pub create: i64,
    /// Revision of its last change.
    pub modified: i64,
    /// Puts since its creation.
    pub version: i64,
    /// Its lease, or 0.
    pub lease: i64,
}

/// One transaction. Values are never used twice, so a value says who wrote it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transaction {
    /// Keys and the mod revisions (0: absent) that they must have.
    pub expect: Vec<(String, i64)>,
    /// Keys, values.
    pub puts: Vec<(String, String)>,
    /// Keys to delete.
    pub deletes: Vec<String>,
    /// The lease that the puts hang on, or 0.
    pub lease: i64,
    /// The leadership that writes, if only a leader may.
    pub fence: Option<u64>,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// A transaction.
    Write(Transaction),
    /// A linearizable read of all keys with this prefix.
    Read(String),
    /// A lease of so many seconds.
    Grant(i64),
    /// More time for a lease.
    KeepAlive(i64),
}

/// What was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Written at this revision.
    Written(i64),
    /// The compares did not hold: the revision, and what the keys were.
    Conflict(i64, Vec<Kv>),
    /// The revision, and the keys at it.
    Read(i64, Vec<Kv>),
    /// A lease, granted or kept alive, and its time.
    Lease(i64, i64),
    /// It has not happened and will not.
    Refused(String),
    /// The outcome is unknown.
    Unknown(String),
}

/// A call and its answer. Without one, the client died with its host: the outcome is unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Which client asked, and at which host: `client@host`.
    pub client: String,
    /// What.
    pub call: Call,
    /// When it was asked.
    pub started: At,
    /// When it was answered, and what.
    pub ended: Option<(At, Answer)>,
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Event {
    /// The key after it; of a deletion only key and revision.
    pub kv: Kv,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The key before it, unless it was created.
    pub before: Option<Kv>,
}

/// What a watch said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Events, and the revision up to which that is everything.
    Batch(i64, Vec<Event>),
    /// History before this is gone, so this watch ends.
    Compacted(i64),
    /// It ended without saying whether history was compacted.
    Ended(String),
}

/// A watch. One that goes on where another ended has the same watcher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// The name of its watcher.
    pub watcher: String,
    /// At which member.
    pub member: String,
    /// Keys with this prefix.
    pub prefix: String,
    /// From which revision on.
    pub from: i64,
    /// What it said, and when.
    pub said: Vec<(At, Said)>,
}

/// A member when everything was over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Final {
    /// Its name.
    pub member: String,
    /// Its revision.
    pub revision: i64,
    /// All keys.
    pub keys: Vec<Kv>,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// In order of their beginnings.
    pub operations: Vec<Operation>,
    /// In order of their beginnings.
    pub watches: Vec<Watch>,
    /// Who led, by term, as members said it: the node ids.
    pub leaders: BTreeMap<u64, Vec<u64>>,
    /// At the end, when all faults were healed.
    pub finals: Vec<Final>,
    /// Others wrote to the store too: revisions of which nothing is known are theirs.
    pub shared: bool,
    /// What must never happen to a member and did: a panic, a start that was refused, no agreement when all was healed.
    pub failures: Vec<String>,
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// How.
    pub what: String,
}

// === impl Operation ===

impl Operation {
    /// The answer, where there is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.ended.as_ref().map(|(_, answer)| answer)
    }

    /// The transaction, if it is one.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        match &self.call {
            Call::Write(transaction) => Some(transaction),
            _ => None,
        }
    }

    /// The revision that the answer names.
    #[must_use]
    pub fn revision(&self) -> Option<i64> {
        match self.answer()? {
            Answer::Written(revision) | Answer::Conflict(revision, _) | Answer::Read(revision, _) => Some(*revision),
            _ => None,
        }
    }
}

// === impl Violation ===

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}
