//! The API server: HTTP, filters, the generic registry over the replicated store, and the watch cache.
//!
//! Owns everything between a socket and a transaction. Must not know how the store replicates (`trireme-raft`), and holds no
//! controller logic. Answers to upstream's `k8s.io/apiserver` and `pkg/registry`.

pub mod admission_request;
pub mod attributes;
pub mod keys;
pub mod lookup;
pub mod user;

pub use admission_request::{AdmissionEffects, AdmissionRequest, Operation};
pub use attributes::Attributes;
pub use lookup::{LookedUp, ObjectReader};
pub use user::{Caller, UserInfo};
