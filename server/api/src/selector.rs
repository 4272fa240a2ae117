//! Label selectors (string and object form) and field selectors.
//!
//! Answers to <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/> and upstream's
//! `k8s.io/apimachinery/pkg/labels` and `.../fields`, including the wording of parse errors.

mod fields;
mod labels;
mod parse;

pub use fields::{FieldRequirement, FieldSelector};
pub use labels::{LabelSelector, Operator, Requirement};

/// Why a selector is none; the text is what a client gets in its 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);
