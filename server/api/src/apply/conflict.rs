//! Conflicts: fields that a manager applies with a new value and that other managers own.

use std::collections::BTreeMap;

use super::element::PathElement;
use super::entries::{Entry, Operation};
use super::set::Set;
use crate::field::quote;
use crate::status::Status;

/// A field that a configuration changes and another manager manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The manager that owns it.
    pub manager: Entry,
    /// The version in which it is managed.
    pub api_version: String,
    /// The path.
    pub path: Vec<PathElement>,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// Other managers manage what it changes.
    Conflicts(Vec<Conflict>),
    /// It is not one that may be applied here.
    Refused(String),
    /// It does not fit the schema, or the object that is there does not.
    Unfit(String),
}

// === impl Conflict ===

impl Conflict {
    /// The conflicts about the fields of `fields`.
    pub fn all(manager: &Entry, api_version: &str, fields: &Set) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        fields.visit(&mut |path| {
            conflicts.push(Conflict {
                manager: manager.clone(),
                api_version: api_version.to_owned(),
                path: path.iter().map(|element| (*element).clone()).collect(),
            });
        });
        conflicts
    }

    fn path_text(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }

    fn manager_text(&self) -> String {
        let mut text = quote(&self.manager.manager);
        if !self.manager.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", quote(&self.manager.subresource)));
        }
        if self.manager.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

// === impl ApplyError ===

impl ApplyError {
    /// As clients see it.
    pub fn to_status(&self) -> Status {
        match self {
            ApplyError::Refused(why) => Status::bad_request(why.as_str()),
            // As upstream, which has no more specific reason for this.
            ApplyError::Unfit(why) => Status::failure(500, "", why.as_str()),
            ApplyError::Conflicts(conflicts) => {
                conflicts.iter().fold(Status::failure(409, "Conflict", text(conflicts)), |status, conflict| {
                    status.with_cause("FieldManagerConflict", format!("conflict with {}", conflict.manager_text()), &conflict.path_text())
                })
            }
        }
    }
}

fn text(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager_text(), only.path_text());
    }
    let mut by_manager: BTreeMap<&Entry, Vec<&Conflict>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(conflict);
    }
    let mut lines = Vec::with_capacity(conflicts.len() + by_manager.len());
    for conflicts in by_manager.values() {
        lines.extend(conflicts.first().map(|first| format!("conflicts with {}:", first.manager_text())));
        lines.extend(conflicts.iter().map(|conflict| format!("- {}", conflict.path_text())));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
