//! A change of the collection that an informer follows.

use std::sync::Arc;

/// What happened to an object.
#[derive(Debug)]
pub enum Event<T> {
    /// The informer did not hold it before.
    Added(Arc<T>),
    /// It changed, or was replaced by another object of the same name: compare uids.
    Updated {
        /// The object before.
        old: Arc<T>,
        /// The object now.
        new: Arc<T>,
    },
    /// It is gone; the last content known.
    Deleted(Arc<T>),
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        match self {
            Event::Added(object) => Event::Added(Arc::clone(object)),
            Event::Updated { old, new } => Event::Updated { old: Arc::clone(old), new: Arc::clone(new) },
            Event::Deleted(object) => Event::Deleted(Arc::clone(object)),
        }
    }
}

impl<T> Event<T> {
    /// The newest content the event knows.
    #[must_use]
    pub fn object(&self) -> &Arc<T> {
        match self {
            Event::Added(object) | Event::Deleted(object) | Event::Updated { new: object, .. } => object,
        }
    }

    /// The content before, if it was known.
    #[must_use]
    pub fn old(&self) -> Option<&Arc<T>> {
        match self {
            Event::Updated { old, .. } => Some(old),
            _ => None,
        }
    }

    /// The object before, if it was known, and the newest content.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<T>> {
        self.old().into_iter().chain([self.object()])
    }

    /// Whether the object is gone.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        matches!(self, Event::Deleted(_))
    }
}
