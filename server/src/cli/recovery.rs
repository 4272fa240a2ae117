//! `trireme snapshot` and `trireme cluster`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AdminArgs, DATA_DIR};

/// `trireme snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save the cluster's state now, prove that it can be restored, and print where it is
    Save {
        /// Beginning of its name; the node's name and the time follow [default: on-demand]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Folder to save it in, on this machine [default: the server's own, DATA-DIR/server/db/snapshots]
        #[arg(long, alias = "snapshot-dir", value_name = "DIR", conflicts_with = "file")]
        dir: Option<PathBuf>,
        /// File to save it as, on this machine
        #[arg(long = "file", short = 'f', value_name = "FILE", conflicts_with = "name")]
        file: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List the snapshots of the server
    #[command(visible_alias = "ls")]
    List {
        /// List this folder of this machine instead; no server is needed
        #[arg(long, alias = "snapshot-dir", value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Remove all snapshots but the newest
    Prune {
        /// How many stay
        #[arg(long, alias = "snapshot-retention", value_name = "N", default_value_t = 5)]
        retention: usize,
        /// Only those whose names begin like this are counted and removed
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Prune this folder of this machine instead; no server is needed
        #[arg(long, alias = "snapshot-dir", value_name = "DIR")]
        dir: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Make a new cluster of one out of a snapshot, on a stopped server
    Restore(RestoreArgs),
}

/// `trireme snapshot restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The snapshot
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder for all state; must have no server's state in it
    #[arg(long, short = 'd', env = "TRIREME_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// The token of the cluster that the snapshot is of [default: the one in the data directory]
    #[arg(long, env = "TRIREME_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, env = "TRIREME_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Move a server's state that is there aside
    #[arg(long)]
    pub force: bool,
}

/// `trireme cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a stopped server a cluster of one, when most of the others are lost for good
    Reset(ResetArgs),
}

/// `trireme cluster reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Folder of the server's state
    #[arg(long, short = 'd', env = "TRIREME_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}
