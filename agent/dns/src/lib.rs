//! Cluster DNS, answered on every node.
//!
//! Owns the names under the cluster domain and forwards the rest. Records come from the informers that the node keeps anyway:
//! with every server lost, names go on resolving from what was last known.
//!
//! Data flows one way: Service and EndpointSlice events → [`records::Cluster`] → [`answer`] and [`packet`] (pure) → [`server`]
//! (sockets) → [`forward`] for names outside.
//!
//! Answers to the Kubernetes
//! [DNS specification 1.1.0](https://github.com/kubernetes/dns/blob/master/docs/specification.md).

pub mod answer;
mod budget;
pub mod forward;
pub mod packet;
pub mod records;
pub mod server;

pub use records::Cluster;
pub use server::{DnsOptions, serve};

/// What goes wrong in the DNS server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or does not exist on this node.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The cluster domain is no domain name.
    #[error("cluster domain {0:?} is not a domain name")]
    BadDomain(String),
}
