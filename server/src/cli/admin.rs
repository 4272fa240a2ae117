//! The operator's commands that talk to a running cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::values;

/// How the cluster is found, and how it is shown.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// The administrator's kubeconfig [default: $KUBECONFIG, or /etc/trireme/kubeconfig.yaml]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// What to print
    #[arg(long, short = 'o', value_enum, value_name = "FORM", default_value_t = OutputForm::Table)]
    pub output: OutputForm,
}

/// A form of printing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// A table, for people
    Table,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// `trireme member`.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// List the members: who leads, who votes, who lags
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Make a token for one more server and print the command that joins with it
    Add {
        /// How long the token is good: a number with s, m, h or d
        #[arg(long, value_name = "TIME", value_parser = values::seconds, default_value = "1h")]
        ttl: i64,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Remove a member for good; a leader hands over first
    Remove {
        /// Its id or name
        #[arg(value_name = "MEMBER")]
        member: String,
        /// Even if the voters left are no quorum that lives
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Give a learner its vote now; it gets it by itself when it has caught up
    Promote {
        /// Its id or name
        #[arg(value_name = "MEMBER")]
        member: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Hand the lead over
    TransferLeader {
        /// Id or name of the new leader [default: the voter that lags least]
        #[arg(value_name = "MEMBER")]
        member: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `trireme token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it: it cannot be shown again
    Create {
        /// What it lets its holder join as
        #[arg(long, value_enum, value_delimiter = ',', value_name = "USAGE", default_value = "agent")]
        usages: Vec<Usage>,
        /// How long it is good: a number with s, m, h or d; 0 for ever
        #[arg(long, value_name = "TIME", value_parser = values::seconds, default_value = "24h")]
        ttl: i64,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List the tokens that were made
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// End a token
    Delete {
        /// Its id, the part before the dot
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Put another server token in force and seal the cluster's keys under it; the old one ends
    Rotate {
        /// The new one [default: made up]
        #[arg(long, env = "TRIREME_NEW_TOKEN", value_name = "TOKEN", hide_env_values = true)]
        new_token: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Usage {
    /// A node
    Agent,
    /// A server, and so a node too
    Server,
}

/// `trireme certificate`.
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Show when the certificates of all servers and nodes end
    Check {
        /// Look at the files of this data directory, without a request to a server
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Renew all certificates now, on every server and node, without a restart
    Rotate {
        /// Only those of these servers and nodes
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `trireme policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the traffic that NetworkPolicies allow to and from a pod
    Explain {
        /// The pod's name
        pod: String,
        /// Its namespace
        #[arg(long, short = 'n', value_name = "NAMESPACE", default_value = "default")]
        namespace: String,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `trireme secrets-encrypt`.
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Say how Secrets are sealed in the store
    Status {
        #[command(flatten)]
        admin: AdminArgs,
    },
}
