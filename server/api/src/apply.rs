//! Field management and server-side apply: sets of fields, their encoding as FieldsV1, and merging by schema.
//!
//! Owns `metadata.managedFields` and the merge of an applied configuration into an object. Must not decide when an object is
//! written: the registry of the API server does. Everything is a function of its arguments; the time is passed in as text. Recursion is
//! as deep as the objects and field sets, whose nesting is limited when they are decoded, and every walk takes at most `n log n` time.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/managedfields` and `sigs.k8s.io/structured-merge-diff`.
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/>

mod check;
mod compare;
mod conflict;
mod element;
mod entries;
mod fields;
mod fields_v1;
mod items;
mod last_applied;
mod manager;
mod merge;
mod prune;
mod remove;
mod scale;
mod set;
mod settle;
mod topology;
mod track;
mod untracked;
mod versions;

#[cfg(test)]
mod tests;

pub use conflict::{ApplyError, Conflict};
pub use element::{PathElement, Scalar};
pub use entries::{Entry, Managed, Operation, Owned, differ_in_times_alone};
pub use fields_v1::{decode, encode};
pub use manager::{MANAGER_MAX_BYTES, of_user_agent, unprintable};
pub use scale::{from_scale, to_scale};
pub use set::Set;
pub use topology::Node;
pub use track::Writer;
pub use untracked::Untracked;
pub use versions::Versions;
