//! The agent: one node of the cluster.
//!
//! Owns the wiring of the node's parts (kubelet, service proxy, pod network, DNS), how the node joins, and what it leaves on
//! the host. The parts know nothing of each other. Must not import the API server or the store: an agent is a client.

mod certificates;
pub mod check;
pub mod cleanup;
mod cluster_dns;
mod error;
pub mod host;
mod host_ports;
pub mod identity;
pub mod join;
pub mod journal;
mod kept_images;
pub mod lock;
mod network;
mod node;
pub mod options;
mod policy;
mod servers;
mod tunnels;

use std::process::ExitCode;

pub use error::Error;
pub use node::{check_first_start, run};
pub use options::{AgentOptions, PROXY_METRICS};
pub use trireme_cni::plugin::{LOOPBACK as CNI_LOOPBACK, PLUGIN as CNI_PLUGIN, main as cni_plugin_main};

/// The whole CNI plugin process, for `main`.
pub fn cni_plugin(name: &str) -> ExitCode {
    cni_plugin_main(name)
}
