//! Cached objects as a watcher sees them: where a webhook converts, objects are converted to the watched version before they are selected.

use std::sync::Arc;

use crate::conversion::Converter;
use crate::error::Answer;
use crate::storage::cache::{Cached, Change};

/// Brings objects into the version of a watch.
pub struct Shown {
    version: String,
    /// None: they are shown as they are cached.
    converter: Option<Converter>,
}

// === impl Shown ===

impl Shown {
    /// In `version`.
    pub fn new(version: &str, converter: Option<Converter>) -> Shown {
        Shown { version: version.to_owned(), converter }
    }

    /// Objects, in their order.
    pub async fn objects(&self, objects: Vec<Arc<Cached>>) -> Answer<Vec<Arc<Cached>>> {
        match &self.converter {
            Some(converter) => converter.cached(&self.version, objects).await,
            None => Ok(objects),
        }
    }

    /// Changes, each with the object before and after. All that is to be converted is one list.
    pub async fn changes(&self, mut changes: Vec<Change>) -> Answer<Vec<Change>> {
        let Some(converter) = &self.converter else { return Ok(changes) };
        let all = changes.iter().flat_map(|change| std::iter::once(&change.object).chain(&change.previous)).cloned().collect();
        let mut shown = converter.cached(&self.version, all).await?.into_iter();
        for change in &mut changes {
            if let Some(object) = shown.next() {
                change.object = object;
            }
            if change.previous.is_some() {
                change.previous = shown.next();
            }
        }
        Ok(changes)
    }
}
