//! A file's content: as it is read now, as it would be read after a power cut, and the changes that lie between.

use std::collections::VecDeque;

/// Bytes of changes that are not synced; beyond it the oldest is written back.
const MOST_UNSYNCED_BYTES: usize = 8 << 20;

/// One change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Bytes at an offset.
    Write { at: u64, bytes: Vec<u8> },
    /// Another length.
    Resize(u64),
}

/// The content of one file.
#[derive(Clone, Debug, Default)]
pub struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: VecDeque<Change>,
    unsynced_bytes: usize,
    /// Changes that have left `unsynced` at its front.
    settled: u64,
}

// === impl Change ===

impl Change {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::Write { bytes, .. } => bytes.len(),
            Change::Resize(_) => 0,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => put(content, *at, bytes),
            Change::Resize(size) => resize(content, *size as usize),
        }
    }
}

/// Writes bytes at an offset, with zeros before it where there was nothing.
fn put(content: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (start, end) = (at as usize, at as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

fn resize(content: &mut Vec<u8>, size: usize) {
    match content.is_empty() {
        // Zeros of a fresh allocation take no memory: files that only hold space cost nothing.
        true => *content = vec![0; size],
        false => content.resize(size, 0),
    }
}

// === impl Content ===

impl Content {
    pub(crate) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(crate) fn unsynced(&self) -> &VecDeque<Change> {
        &self.unsynced
    }

    /// By how many bytes the file has grown.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> u64 {
        let before = self.now.len();
        put(&mut self.now, at, bytes);
        self.note(Change::Write { at, bytes: bytes.to_vec() });
        (self.now.len() - before) as u64
    }

    pub(crate) fn resize(&mut self, size: u64) {
        resize(&mut self.now, size as usize);
        self.note(Change::Resize(size));
    }

    fn note(&mut self, change: Change) {
        self.unsynced_bytes += change.bytes();
        self.unsynced.push_back(change);
        while self.unsynced_bytes > MOST_UNSYNCED_BYTES {
            self.settle(true);
        }
    }

    /// The oldest change is over: it lasts, or it never will.
    fn settle(&mut self, lasts: bool) {
        let Some(change) = self.unsynced.pop_front() else { return };
        self.settled += 1;
        self.unsynced_bytes -= change.bytes();
        if lasts {
            change.apply(&mut self.synced);
        }
    }

    pub(crate) fn mark(&self) -> u64 {
        self.settled + self.unsynced.len() as u64
    }

    pub(crate) fn sync(&mut self, mark: u64) {
        while self.settled < mark && !self.unsynced.is_empty() {
            self.settle(true);
        }
    }

    pub(crate) fn forget(&mut self, mark: u64) {
        while self.settled < mark && !self.unsynced.is_empty() {
            self.settle(false);
        }
    }

    /// A power cut: of the changes only `kept` are there, in this order.
    pub(crate) fn lose(&mut self, kept: &[Change]) {
        kept.iter().for_each(|change| change.apply(&mut self.synced));
        self.now.clone_from(&self.synced);
        self.unsynced.clear();
        (self.unsynced_bytes, self.settled) = (0, 0);
    }
}
