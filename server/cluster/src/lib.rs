//! A cluster's own keys and membership: certificate authorities, join tokens, joining, the operator's endpoints, and the
//! objects that every cluster has.
//!
//! Owns what makes servers and nodes members of one cluster. The API server knows nothing of it: it is given keys
//! ([`trireme_apiserver::ServerKeys`]), routes ([`trireme_apiserver::http::extra_routes::ExtraRoutes`]) and families of
//! operator's endpoints ([`trireme_apiserver::endpoints::operator::RouteFamily`]). Must not know how the store replicates.

pub mod admin;
pub mod bootstrap;
pub mod join;
pub mod pki;
pub mod tokens;
