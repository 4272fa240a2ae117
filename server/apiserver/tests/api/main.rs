//! The API server as a whole over a store of its own: requests in the process, over TLS, and from other servers.
//!
//! One program, so that the server's code is generated for tests once.

#![recursion_limit = "512"]
#![allow(clippy::unwrap_used, clippy::panic)]

mod apply;
mod audit;
mod audit_webhook;
mod conversion;
mod crd;
mod crud;
mod extension;
mod flowcontrol;
mod forms;
mod https;
mod kinds;
mod oidc;
mod once;
mod plugins;
mod policies;
mod protobuf;
mod quotas;
mod resource_metrics;
mod rows;
mod security;
mod security_requests;
mod services;
mod subresource_metadata;
mod subresources;
mod support;
mod webhooks;
