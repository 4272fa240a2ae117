//! The folders of local volumes that are being removed.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

/// So many folders are removed at once.
const MAX_REMOVALS: usize = 8;

/// The folders that are being removed. A request may end before its removal does: the next one must not begin it again.
#[derive(Clone, Default)]
pub(crate) struct Removals(Arc<Mutex<HashSet<String>>>);

/// One removal; it ends when this is dropped.
pub(crate) struct Removal {
    all: Removals,
    name: String,
}

impl Removals {
    /// Begins a removal, unless it is under way or too many others are.
    pub(super) fn begin(&self, name: &str) -> Option<Removal> {
        let mut names = self.0.lock();
        let free = names.len() < MAX_REMOVALS && names.insert(name.to_string());
        free.then(|| Removal { all: self.clone(), name: name.to_string() })
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.name);
    }
}
