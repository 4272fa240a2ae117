//! Which Services changed since the rules were written.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;
use trireme_client::ObjectKey;

/// Marks by the informers' handlers, taken by the one that writes the rules.
#[derive(Debug, Default)]
pub struct Dirty {
    marks: Mutex<Marks>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Marks {
    all: bool,
    services: BTreeSet<ObjectKey>,
}

impl Dirty {
    /// This Service is to be looked at.
    pub fn mark(&self, service: ObjectKey) {
        self.with(|marks| marks.services.insert(service));
        self.changed.notify_one();
    }

    /// All Services are to be looked at.
    pub fn mark_all(&self) {
        self.with(|marks| marks.all = true);
        self.changed.notify_one();
    }

    /// Takes the marks; None if all Services are marked.
    pub fn take(&self) -> Option<BTreeSet<ObjectKey>> {
        let marks = self.with(std::mem::take);
        (!marks.all).then_some(marks.services)
    }

    /// Returns after a mark.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn with<T>(&self, edit: impl FnOnce(&mut Marks) -> T) -> T {
        // Marks are whole after each edit, also after a panic elsewhere.
        edit(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
