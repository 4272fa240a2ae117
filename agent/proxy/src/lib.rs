//! The service proxy: what kube-proxy does, in nftables.
//!
//! Owns the table `ip trireme` of the node: ClusterIP, NodePort, external and load-balancer addresses, session
//! affinity, hairpin, and the masquerade of pod traffic that leaves the cluster. Must not touch links, routes or
//! addresses (that is `trireme-cni`).
//!
//! Data flows one way: a Service that changed and its EndpointSlices → [`services`] (what each port balances to) → `compile` (`ordinary` or
//! `chained`) → [`ruleset`] (chains and map elements) → difference to what is loaded of this Service → one transaction of `trireme-nft`.
//!
//! Answers to <https://kubernetes.io/docs/reference/networking/virtual-ips/>.

mod chained;
mod compile;
mod dirty;
pub mod health;
pub mod health_ports;
pub mod host_ports;
mod loaded;
pub mod metrics;
mod ordinary;
mod proxier;
pub mod ruleset;
pub mod services;
mod skeleton;
pub mod topology;

pub use proxier::{Proxier, ProxyOptions};

/// What goes wrong in the service proxy.
pub type Error = trireme_nft::Error;
