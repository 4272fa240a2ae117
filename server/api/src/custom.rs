//! Custom resources: a CustomResourceDefinition becomes a [`Definition`](crate::resource::Definition) like a built-in one.
//!
//! Owns the structural schema of a version and everything that is done by it (decoding, pruning, defaulting, validation, columns,
//! the published document), the rules for schemas, and the names that a definition is granted. Must not do I/O or depend on how a
//! definition is used. Upstream: `apiextensions-apiserver`.
//!
//! <https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/custom-resources/>

pub mod accept;
pub mod approval;
mod columns;
pub mod conversion;
pub mod decode;
mod default_rules;
mod defaults;
pub mod define;
mod embedded;
mod formats;
mod json_path;
mod kind;
mod lists;
mod pattern;
mod prune;
mod scale_paths;
pub mod schema_rules;
pub mod structural;
mod structure_rules;
pub mod validations;
mod values;

pub use formats::is_known as is_known_format;
