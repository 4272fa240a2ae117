//! The object that defines a row which is made at run time.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Which object defines a row, and as of when.
#[derive(Debug)]
pub struct Origin {
    /// The key of the object in the store.
    pub key: String,
    /// Changes when the definition does.
    pub digest: [u8; 32],
    revision: AtomicI64,
    closing: AtomicBool,
}

// === impl Origin ===

impl Origin {
    /// The object at `key` as it was changed last at `revision`.
    pub fn new(key: String, digest: [u8; 32], revision: i64, closing: bool) -> Origin {
        Origin { key, digest, revision: AtomicI64::new(revision), closing: AtomicBool::new(closing) }
    }

    /// The object has changed in something that its definition does not depend on.
    pub fn touch(&self, revision: i64, closing: bool) {
        self.revision.store(revision, Ordering::Release);
        self.closing.store(closing, Ordering::Release);
    }

    /// The revision of the object's last change. A create of an object of the row requires that this is still the current one.
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether the row takes no more objects.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
