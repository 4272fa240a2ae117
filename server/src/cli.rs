//! The command line: names, help texts and parsing. Owns no behaviour; `main` dispatches what is parsed here.
//!
//! Values merge file < environment (`TRIREME_*`) < flags; [`crate::config`] turns the file into flags.

mod admin;
mod agent;
mod audit;
mod audit_webhook;
mod oidc;
mod recovery;
mod server;
mod upstream;
mod values;

use clap::{Parser, Subcommand};

pub use admin::{AdminArgs, CertificateCommand, MemberCommand, OutputForm, PolicyCommand, SecretsCommand, TokenCommand, Usage};
pub use agent::{AgentArgs, CheckHostArgs, Role};
pub use recovery::{ClusterCommand, ResetArgs, RestoreArgs, SnapshotCommand};
pub use server::{FlannelBackend, ServerArgs};
pub use values::{Label, TaintArg};

/// Where everything lives unless told otherwise.
pub const DATA_DIR: &str = "/var/lib/trireme";
/// The configuration file that is read if it exists.
pub const CONFIG_FILE: &str = "/etc/trireme/config.yaml";

/// Trireme: a Kubernetes distribution in one binary.
#[derive(Debug, Parser)]
#[command(name = "trireme", version = crate::VERSION, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "A first cluster:\n  trireme server                                  # on this machine; writes /etc/trireme/kubeconfig.yaml\n  trireme agent --server https://IP:6443 --token \"$(cat /var/lib/trireme/server/node-token)\"   # on another\n\nThree servers: start the first with --cluster-init, the others with --server https://FIRST:6443 --token T."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server: store, API server, scheduler, controllers, and a node unless --disable-agent
    Server(Box<ServerArgs>),
    /// Run a node: kubelet, service proxy, pod network and DNS
    Agent(Box<AgentArgs>),
    /// Check whether this host can run a server or a node, and say what to do where it cannot
    CheckHost(CheckHostArgs),
    /// Take a stopped node off this host: its pods, mounts, links and rules
    Cleanup {
        /// Folder of the node's state
        #[arg(long, short = 'd', env = "TRIREME_DATA_DIR", default_value = DATA_DIR, value_name = "DIR")]
        data_dir: std::path::PathBuf,
        /// Socket of the container runtime
        #[arg(long, value_name = "SOCKET", value_parser = values::socket_path, default_value = "/run/containerd/containerd.sock")]
        container_runtime_endpoint: std::path::PathBuf,
        /// Cgroup below which the pods lived
        #[arg(long, value_name = "PATH", default_value = "/")]
        cgroup_root: String,
    },
    /// Look at and change who belongs to the cluster
    #[command(subcommand)]
    Member(MemberCommand),
    /// Save the cluster's state, and make a cluster of what was saved
    #[command(subcommand, visible_alias = "etcd-snapshot")]
    Snapshot(SnapshotCommand),
    /// Recover from the loss of most servers
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Make, list and end the tokens that let servers and agents join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at and renew the certificates of servers and nodes
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Look at how Secrets are sealed in the store
    #[command(subcommand)]
    SecretsEncrypt(SecretsCommand),
    /// Look at what NetworkPolicies mean for pods
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Check a configuration file without starting anything
    CheckConfig {
        /// The file to check
        #[arg(long, default_value = CONFIG_FILE, value_name = "FILE")]
        config: std::path::PathBuf,
    },
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}
