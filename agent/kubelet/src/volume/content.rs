//! Volumes whose files are made of API objects: configMap, secret, downwardAPI, and projected, which mixes them with tokens.
//!
//! Files are written atomically; those that may hold secrets live in memory.

mod atomic;
pub(crate) mod configmap;
pub(crate) mod downward;
pub(crate) mod projected;
pub(crate) mod secret;
mod source;
pub(crate) mod token;
