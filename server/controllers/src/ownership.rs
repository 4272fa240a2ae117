//! Owners and what they own: the one place that claims, adopts, releases, creates and deletes dependents.
//!
//! Owns: owner references ([`references`]), the decision which objects are whose ([`claim`]), the dependents of one kind of
//! owner with the writes that the cache may not show yet ([`Children`]), and creation in growing batches ([`slow_start`]).
//!
//! Must not: count an object of another namespace. Dependents are found by namespace, kind, name and uid of their controller.
//!
//! Answers to: upstream's `controller_ref_manager.go`, `controller_utils.go`.

mod children;
mod claim;
pub(crate) mod references;
mod slow_start;

pub(crate) use children::Children;
pub(crate) use references::{controller_of, controller_reference, is_controlled_by};
pub(crate) use slow_start::slow_start;
