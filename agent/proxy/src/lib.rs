//! The service proxy: what kube-proxy does, in nftables.
//!
//! Owns the table `ip trireme` of the node: ClusterIP, NodePort, external and load-balancer addresses, session
//! affinity, hairpin, and the masquerade of pod traffic that leaves the cluster. Must not touch links, routes or
//! addresses (that is `trireme-cni`).
//!
//! Data flows one way: Service and EndpointSlice objects → [`services`] (what each port balances to) → [`ruleset`]
//! (chains and map elements) → difference to what is loaded → one atomic [`nft`] transaction.
//!
//! Answers to <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

pub mod health;
pub mod metrics;
pub mod nft;
mod proxier;
pub mod ruleset;
pub mod services;

pub use proxier::{Proxier, ProxyOptions};

/// What goes wrong in the service proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The `nft` program could not be run.
    #[error("run nft: {0}")]
    Run(std::io::Error),
    /// nft refused a transaction; nothing of it was applied.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}
