//! `trireme agent`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{
    CONFIG_FILE, DATA_DIR,
    values::{self, Label, TaintArg},
};

/// Options of a node.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// A server of the cluster, or its load balancer
    #[arg(long, short = 's', env = "TRIREME_SERVER", value_name = "URL", value_parser = values::server_url)]
    pub server: Option<String>,
    /// Secret from the server's node-token file
    #[arg(long, short = 't', env = "TRIREME_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, env = "TRIREME_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Folder for all state
    #[arg(long, short = 'd', env = "TRIREME_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Configuration file (YAML; keys are the flags' names)
    #[arg(long, short = 'c', env = "TRIREME_CONFIG_FILE", value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
    /// Name of this node [default: the host's name]
    #[arg(long, env = "TRIREME_NODE_NAME", value_name = "NAME", value_parser = values::node_name)]
    pub node_name: Option<String>,
    /// Address of this node [default: the one with the default route]
    #[arg(long, env = "TRIREME_NODE_IP", value_name = "IP", value_parser = values::ip)]
    pub node_ip: Option<IpAddr>,
    /// Address under which the node is known outside
    #[arg(long, env = "TRIREME_NODE_EXTERNAL_IP", value_name = "IP", value_parser = values::ip)]
    pub node_external_ip: Option<IpAddr>,
    /// Label for the node; may be repeated
    #[arg(long, value_name = "K=V")]
    pub node_label: Vec<Label>,
    /// Taint for the node; may be repeated
    #[arg(long, value_name = "K=V:EFFECT")]
    pub node_taint: Vec<TaintArg>,
    /// Socket of the container runtime
    #[arg(long, env = "TRIREME_CONTAINER_RUNTIME_ENDPOINT", value_name = "SOCKET", value_parser = values::socket_path, default_value = "/run/containerd/containerd.sock")]
    pub container_runtime_endpoint: PathBuf,
    /// Cgroup below which all pods live
    #[arg(long, env = "TRIREME_CGROUP_ROOT", value_name = "PATH", default_value = "/")]
    pub cgroup_root: String,
    /// What to log: error, warn, info, debug, trace, or a filter such as trireme_kubelet=debug
    #[arg(long, env = "TRIREME_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// kubelet flag (NAME=VALUE); a name that is not supported ends the start
    #[arg(long, value_name = "K=V")]
    pub kubelet_arg: Vec<Label>,
    /// kube-proxy flag (NAME=VALUE); a name that is not supported ends the start
    #[arg(long, value_name = "K=V")]
    pub kube_proxy_arg: Vec<Label>,
}

/// What is to run on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Store, API server, controllers and a node
    All,
    /// A server without a node (--disable-agent)
    Server,
    /// A node
    Agent,
}

/// Options of `trireme check-host`.
#[derive(Debug, Clone, Args)]
pub struct CheckHostArgs {
    /// What is to run here
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// Folder for all state
    #[arg(long, short = 'd', env = "TRIREME_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Socket of the container runtime
    #[arg(long, env = "TRIREME_CONTAINER_RUNTIME_ENDPOINT", value_name = "SOCKET", value_parser = values::socket_path, default_value = "/run/containerd/containerd.sock")]
    pub container_runtime_endpoint: PathBuf,
    /// Another CNI plugin is installed (--flannel-backend none)
    #[arg(long)]
    pub foreign_network: bool,
}
