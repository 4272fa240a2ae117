//! NetworkPolicies: what may reach the pods of this node and what they may reach, in nftables.
//!
//! Owns the table `ip trireme_policy` of the node. Must not touch links or addresses (`trireme-cni`) or know Services (`trireme-proxy`):
//! rules see packets after a Service's address was replaced by that of a pod.
//!
//! Data flows one way: NetworkPolicy, Namespace and [`PodAddress`] objects → [`state`] (this node's pods, all peers) → [`compile`]
//! (chains, sets and verdicts) → difference to what is loaded → one transaction of `trireme-nft`. While the cluster has no policy,
//! neither namespaces nor pods are watched, and no chain is called by the kernel.
//!
//! What is allowed whatever a policy says: answers within a connection that was allowed when it began, traffic between a pod and its own
//! node, and that of a pod with itself.
//!
//! Answers to <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.

pub mod compile;
mod enforcer;
mod objects;
pub mod ranges;
pub mod ruleset;
pub mod state;

pub use enforcer::{Enforcer, PolicyOptions};
pub use objects::{NamedPort, PodAddress};

/// What goes wrong in the enforcement.
pub type Error = trireme_nft::Error;
