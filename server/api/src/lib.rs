//! Kubernetes' API machinery without I/O: objects, names, Status, selectors, quantities, schemas, patches,
//! defaulting, validation, tables, discovery and OpenAPI documents.
//!
//! **Architecture Invariant:** nothing in this crate reads a clock, a file, a socket or randomness. Time and entropy
//! come in as arguments, so every function here can be tested as a function. Objects are [`serde_json::Value`]s whose
//! maps are ordered by key; no typed struct is on the storage path (a typed struct drops the fields it doesn't know).

// A Status is big, but it travels once per refused request.
#![allow(clippy::result_large_err)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod admin;
pub mod apply;
pub mod bootstrap;
pub mod cel;
pub mod certificate_request;
pub mod custom;
mod default;
pub mod discovery;
pub mod field;
pub mod gvk;
pub mod intstr;
pub mod join;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod rbac_defaults;
pub mod resource;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;
pub mod validate;
