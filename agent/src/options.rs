//! What a node is told at start.

pub mod kubelet;
mod kubelet_config;
pub mod proxy;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use k8s_openapi::api::core::v1::Taint;

pub use kubelet::KubeletFlags;
pub use proxy::{PROXY_METRICS, ProxyFlags};

/// What a node is told at start.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// A server to join at, `https://host:port`; not needed once joined.
    pub server: Option<String>,
    /// The join token; not needed once joined.
    pub token: Option<String>,
    /// All state is below it.
    pub data_dir: PathBuf,
    /// The node's name; the host's if not given.
    pub node_name: Option<String>,
    /// The node's address; the one with the default route if not given.
    pub node_ip: Option<IpAddr>,
    /// Address under which it is known outside.
    pub node_external_ip: Option<IpAddr>,
    /// Labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node when it is first registered.
    pub taints: Vec<Taint>,
    /// Socket of the container runtime.
    pub runtime_endpoint: PathBuf,
    /// Cgroup below which pods live.
    pub cgroup_root: String,
    /// The version that the Node reports.
    pub version: String,
    /// What upstream's kubelet has flags for.
    pub kubelet: KubeletFlags,
    /// What upstream's kube-proxy has flags for.
    pub proxy: ProxyFlags,
    /// Whether this process is nothing but the node: then its kubelet shows the process's numbers too.
    pub own_process: bool,
}
