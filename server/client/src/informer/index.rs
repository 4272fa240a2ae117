//! A way to find objects of an informer by something other than their name.

use std::sync::Arc;

use super::Informer;
use crate::Object;

/// An index of an informer. To hold one is to know that it is kept.
pub struct Index<T> {
    pub(super) informer: Arc<Informer<T>>,
    pub(super) name: &'static str,
}

impl<T> Clone for Index<T> {
    fn clone(&self) -> Self {
        Self { informer: Arc::clone(&self.informer), name: self.name }
    }
}

impl<T: Object> Index<T> {
    /// The objects found under a value, ordered by namespace and name.
    #[must_use]
    pub fn get(&self, value: &str) -> Vec<Arc<T>> {
        self.informer.store.read().by_index(self.name, value)
    }
}
