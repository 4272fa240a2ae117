//! The selection of a list or watch: label and field selectors compiled for one resource.

use trireme_api::selector::{FieldSelector, LabelSelector};
use trireme_api::status::Status;

use crate::catalog::rows::{Row, View};
use crate::error::Answer;
use crate::storage::cache::Cached;

/// A compiled pair of selectors.
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    everything: bool,
}

impl Selection {
    /// Parses both selectors; `name` narrows to one object (watch of a name).
    pub fn parse(view: &View, version: &str, labels: &str, fields: &str) -> Answer<Selection> {
        let label_selector = LabelSelector::parse(labels).map_err(|e| Status::bad_request(e.to_string()))?;
        let field_selector = FieldSelector::parse(fields).map_err(|e| Status::bad_request(e.to_string()))?;
        if let Some(field) = field_selector.first_unsupported(|name| view.definition.field(name).is_some()) {
            let group = &view.resource.group;
            Err(Status::bad_request(format!(
                "Unable to find {:?} that match label selector {labels:?}, field selector {fields:?}: field label not supported: {field}",
                format!("{group}/{version}, Resource={}", view.resource.plural)
            )))?;
        }
        let everything = label_selector.is_everything() && field_selector.is_everything();
        Ok(Selection { labels: label_selector, fields: field_selector, everything })
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// The first comparison that an index of `row` answers: the number of the indexed field and the value that it must have.
    pub fn indexed(&self, view: &View, row: &Row) -> Option<(usize, &str)> {
        self.fields.requirements().iter().filter(|comparison| comparison.equals).find_map(|comparison| {
            let field = view.definition.field(&comparison.field)?;
            let path = field.only_path()?;
            // The value of an absent field is in no index.
            let is_indexed = !comparison.value.is_empty() && *comparison.value != *field.absent;
            let at = row.fields.iter().position(|known| known == path)?;
            is_indexed.then_some((at, comparison.value.as_str()))
        })
    }

    /// Whether an object is selected.
    pub fn matches(&self, view: &View, row: &Row, object: &Cached) -> bool {
        self.everything || (self.labels.matches_by(|key| object.label(key)) && row.matches_fields(&view.definition, &self.fields, object))
    }
}
