//! The agent: one node of the cluster.
//!
//! Owns the wiring of the node's parts (kubelet, service proxy, pod network, DNS), how the node joins, and what it leaves on
//! the host. The parts know nothing of each other. Must not import the API server or the store: an agent is a client.

mod certificates;
pub mod cleanup;
pub mod host;
pub mod identity;
pub mod join;
pub mod journal;
pub mod lock;
mod node;
mod servers;

use std::{net::Ipv4Addr, path::Path, process::ExitCode};

pub use node::{AgentOptions, PROXY_METRICS, check_first_start, run};
pub use trireme_cni::plugin::{LOOPBACK as CNI_LOOPBACK, PLUGIN as CNI_PLUGIN, main as cni_plugin_main};

/// The CNI plugin's socket, below the agent's folder.
pub(crate) const CNI_SOCKET: &str = "cni.sock";

/// What ends an agent. Each is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Joining failed for good: wrong token, wrong CA, refused name.
    #[error("join: {0}")]
    Join(String),
    /// The host lacks something.
    #[error("{0}")]
    Host(String),
    /// A wrong option.
    #[error("{0}")]
    Option(String),
    /// The pod network could not be made.
    #[error("pod network: {0}")]
    Network(#[from] trireme_cni::Error),
    /// The kubelet could not start.
    #[error("kubelet: {0}")]
    Kubelet(#[from] trireme_kubelet::Error),
    /// The servers could not be reached in principle: a bad address or certificate.
    #[error("servers: {0}")]
    Transport(#[from] trireme_client::TransportError),
}

/// The whole CNI plugin process, for `main`.
pub fn cni_plugin(name: &str) -> ExitCode {
    cni_plugin_main(name)
}

pub(crate) fn network_options(
    agent_dir: &Path,
    node_name: String,
    node_ip: Ipv4Addr,
    backend: trireme_cni::Backend,
    answered_here: Vec<Ipv4Addr>,
    owns_links: bool,
) -> trireme_cni::NetworkOptions {
    trireme_cni::NetworkOptions { node_name, node_ip, backend, answered_here, folder: agent_dir.join("cni/addresses"), owns_links }
}
