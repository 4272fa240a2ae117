//! Code generation for the repository: `cargo run -p xtask -- <command>`.

mod protobuf;
mod resources;
mod rust;
mod schema;

use std::path::PathBuf;

use clap::Parser;

/// Generates the tables that are committed.
#[derive(Parser)]
#[command(name = "xtask")]
enum Command {
    /// Schema facts of the built-in kinds, from `_definitions.json` of the PyPI package kubernetes-validate.
    GenSchema {
        /// Path of `_definitions.json` (of the folder `v1.36.0-local`).
        definitions: PathBuf,
    },
    /// Rows of the built-in resources, from discovery documents.
    GenResources {
        /// A folder with `apis.json`, `api__v1.json` and one `apis__GROUP__VERSION.json` for every group version.
        discovery: PathBuf,
    },
    /// Wire facts of the built-in kinds, from the source of the crate k8s-pb and the definitions of GenSchema.
    GenProtobuf {
        /// The folder `src` of k8s-pb 0.9.
        source: PathBuf,
        /// Path of `_definitions.json`.
        definitions: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::GenSchema { definitions } => schema::generate(&definitions),
        Command::GenResources { discovery } => resources::generate(&discovery),
        Command::GenProtobuf { source, definitions } => protobuf::generate(&source, &definitions),
    }
}
