//! The operator's commands that talk to a running cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
