//! Code generation for the repository, and the check that what was generated is current.
//!
//! `cargo run -p xtask -- --check` compares; `cargo run -p xtask -- generate TABLE` writes one table and its entry in `generated.json`.

mod presence;
mod protobuf;
mod record;
mod resources;
mod rust;
mod schema;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use table::Table;

/// Generates the tables that are committed, and checks them.
#[derive(Parser)]
#[command(name = "xtask")]
struct Options {
    /// Compare the committed tables with what their pinned inputs give; without the inputs, with the recorded checksums.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    inputs: Inputs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Write a table and record the checksums of its inputs and of itself.
    Generate {
        /// Which one.
        table: Table,
    },
    /// Print what the inputs are and where they come from.
    Inputs,
}

/// Where the inputs are. `ops/lib/inputs.sh` fetches the first two.
#[derive(Args, Clone)]
struct Inputs {
    /// `_definitions.json` of the Python package kubernetes-validate, folder `v1.36.0-local`.
    #[arg(long, global = true, env = "TRIREME_DEFINITIONS")]
    definitions: Option<PathBuf>,
    /// The folder `src` of the crate k8s-pb.
    #[arg(long, global = true, env = "TRIREME_K8S_PB")]
    k8s_pb: Option<PathBuf>,
    /// A folder with `apis.json`, `api__v1.json` and one `apis__GROUP__VERSION.json` for every group version.
    #[arg(long, global = true, env = "TRIREME_DISCOVERY")]
    discovery: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let fresh = match options.command {
        Some(Command::Generate { table }) => table::generate(table, &options.inputs).map(|()| true)?,
        Some(Command::Inputs) => table::list().map(|()| true)?,
        None if options.check => table::check(&options.inputs)?,
        None => anyhow::bail!("nothing to do: see --help"),
    };
    Ok(if fresh { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
