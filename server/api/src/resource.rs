//! The description of one resource: a [`Definition`] joins its names and versions, its schema and its [`Kind`].
//!
//! Owns the trait that every kind implements, the definition that a row of the catalog holds, and the parts a kind is
//! described with (columns, cells, selectable fields). Must not name a group or a kind: everything specific to a kind is
//! in [`crate::kinds`], and a custom resource brings its own `Kind` at run time. Upstream: the strategies in
//! `pkg/registry/*/*/strategy.go` and the store in `apiserver/pkg/registry/generic/registry`.

mod cells;
mod column;
mod definition;
mod kind;
mod scale;
mod schema;
mod selectable;
mod subresource;

pub use cells::{Cells, RowCondition};
pub use column::Column;
pub use definition::{Defined, Definer, Definition, Identity, Published};
pub use kind::{Allocation, Dependents, Kind, Plain};
pub use scale::Scaled;
pub use schema::Schema;
pub use selectable::SelectableField;
pub(crate) use subresource::{carry, carry_metadata, carry_own_metadata};
