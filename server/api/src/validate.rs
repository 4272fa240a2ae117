//! The means of validation: places in an object with their paths, the rules of `metadata`, addresses, differences.
//!
//! Objects are decoded and defaulted before. Validation reads one object and, on an update, its stored state; it must not
//! read other objects (admission does), allocate, or read a clock. The rules of a kind are in the kind's file. Upstream:
//! `apimachinery/pkg/api/validation`.

mod at;
pub(crate) mod diff;
pub(crate) mod metadata;
pub(crate) mod net;

pub use at::{At, Errors, same};
pub use metadata::NameRule;
