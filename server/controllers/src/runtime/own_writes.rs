//! Reading one's own writes: a reconcile that created or deleted objects must not look at the cache again before the cache
//! shows them, or it would create and delete them twice.
//!
//! Upstream counts expected events. Here the resourceVersion *is* the store's revision, so it is enough to wait until
//! the informer has passed the revisions of one's writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trireme_client::{Informer, Object, ObjectKey};

use crate::Error;

/// How long a reconcile waits for its cache before it lets others go first.
const PATIENCE: Duration = Duration::from_secs(5);
/// From so many keys on, those that the cache shows are forgotten even if no controller asks for them again.
const PRUNE_FROM: usize = 1024;

#[derive(Default)]
struct Pending {
    /// The informer must have passed this.
    revision: i64,
    /// These must be gone or terminating.
    deleted: Vec<(ObjectKey, String)>,
}

/// The writes of each key that the cache may not show yet.
pub(crate) struct OwnWrites<T> {
    informer: Arc<Informer<T>>,
    pending: Mutex<HashMap<ObjectKey, Pending>>,
}

impl<T: Object> OwnWrites<T> {
    pub(crate) fn new(informer: &Arc<Informer<T>>) -> Self {
        Self { informer: Arc::clone(informer), pending: Mutex::new(HashMap::new()) }
    }

    /// An object was written on behalf of `key`; `written` is the server's answer.
    pub(crate) fn wrote<W: Object>(&self, key: &ObjectKey, written: &W) {
        let revision = written.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        self.note(key, |entry| entry.revision = entry.revision.max(revision));
    }

    /// An object was deleted on behalf of `key`.
    pub(crate) fn deleted(&self, key: &ObjectKey, object: &T) {
        self.note(key, |entry| entry.deleted.push((ObjectKey::of(object), object.uid().to_owned())));
    }

    fn note(&self, key: &ObjectKey, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.pending.lock();
        if pending.len() >= PRUNE_FROM && !pending.contains_key(key) {
            pending.retain(|_, entry| !self.shows(entry));
        }
        change(pending.entry(key.clone()).or_default());
    }

    /// Waits until the cache shows everything that was written on behalf of `key`.
    pub(crate) async fn settle(&self, key: &ObjectKey) -> Result<(), Error> {
        if !self.pending.lock().contains_key(key) {
            return Ok(());
        }
        let seen = self.informer.wait_until(|| self.pending.lock().get(key).is_none_or(|entry| self.shows(entry)));
        tokio::time::timeout(PATIENCE, seen).await.map_err(|_| Error::StaleCache)?;
        self.pending.lock().remove(key);
        Ok(())
    }

    fn shows(&self, entry: &Pending) -> bool {
        self.informer.last_revision() >= entry.revision
            && entry.deleted.iter().all(|(key, uid)| {
                self.informer.get_key(key).is_none_or(|object| object.uid() != uid || object.meta().deletion_timestamp.is_some())
            })
    }
}
