//! Which objects a watcher sees, and what a change is to it.

use std::sync::Arc;

use crate::catalog::rows::{Row, View};
use crate::http::request_info::RequestInfo;
use crate::http::selection::Selection;
use crate::storage::cache::{Cached, Change, EventType, Interest};

/// The objects that a watch is about.
pub struct Scope {
    view: View,
    row: Arc<Row>,
    /// The keys that the path covers, relative to the row.
    prefix: String,
    /// The only object, if one is named by the path (in the old form `/watch/...`) or by the field selector.
    name: String,
    selection: Selection,
}

impl Scope {
    /// The objects that a request asks for.
    pub fn new(view: View, row: &Arc<Row>, info: &RequestInfo, selection: Selection) -> Scope {
        Scope { view, prefix: row.scope_prefix(&info.namespace), row: row.clone(), name: info.name.clone(), selection }
    }

    /// The keys that can be seen.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The narrowest interest that covers every object the watcher can see.
    pub fn interest(&self) -> Interest {
        if !self.name.is_empty() && self.row.resource.namespaced != self.prefix.is_empty() {
            return Interest::Object(format!("{}{}", self.prefix, self.name).into());
        }
        // Objects that a webhook converts are selected after the conversion but indexed before it: the index cannot be used.
        let indexed = if self.row.webhook.is_some() { None } else { self.selection.indexed(&self.view, &self.row) };
        if let Some((field, value)) = indexed {
            return Interest::Field(field, value.into());
        }
        match self.prefix.strip_suffix('/') {
            Some(namespace) => Interest::Namespace(namespace.into()),
            None => Interest::Everything,
        }
    }

    /// Whether an object is seen.
    pub fn sees(&self, object: &Cached) -> bool {
        (self.prefix.is_empty() || self.prefix.strip_suffix('/') == Some(&*object.namespace))
            && (self.name.is_empty() || *object.name == *self.name)
            && self.selection.matches(&self.view, &self.row, object)
    }

    /// The event that the watcher gets for a change. An object that leaves the selection is reported as deleted, with its old content and
    /// the new revision.
    pub fn event(&self, change: &Change) -> Option<(EventType, Arc<Cached>)> {
        let before = change.previous.as_deref().is_some_and(|object| self.sees(object));
        let now = change.event_type != EventType::Deleted && self.sees(&change.object);
        match (before, now) {
            (false, true) => Some((EventType::Added, change.object.clone())),
            (true, true) => Some((EventType::Modified, change.object.clone())),
            (true, false) if change.event_type == EventType::Deleted => Some((EventType::Deleted, change.object.clone())),
            (true, false) => {
                let previous = change.previous.as_deref()?;
                Some((EventType::Deleted, Arc::new(previous.restamped(change.revision, EventType::Deleted))))
            }
            (false, false) => None,
        }
    }
}
