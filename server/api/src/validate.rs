//! The means of validation: places in an object with their paths, the rules of `metadata`, addresses, differences.
//!
//! Objects come decoded and defaulted. Validation looks at one object, and at its stored state where it changes; it must not
//! look at other objects (that is admission), allocate, or read a clock. The rules of a kind stand in the kind. Upstream:
//! `apimachinery/pkg/api/validation`.

mod at;
pub(crate) mod diff;
pub(crate) mod metadata;
pub(crate) mod net;

pub use at::{At, Errors, same};
pub use metadata::NameRule;
