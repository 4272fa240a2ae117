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
    #[command(name = "gen-schema")]
    Schema {
        /// Path of `_definitions.json` (of the folder `v1.36.0-local`).
        definitions: PathBuf,
    },
    /// Rows of the built-in resources, from discovery documents.
    #[command(name = "gen-resources")]
    Resources {
        /// A folder with `apis.json`, `api__v1.json` and one `apis__GROUP__VERSION.json` for every group version.
        discovery: PathBuf,
    },
    /// Wire facts of the built-in kinds, from the source of the crate k8s-pb and the definitions of gen-schema.
    #[command(name = "gen-protobuf")]
    Protobuf {
        /// The folder `src` of k8s-pb 0.9.
        source: PathBuf,
        /// Path of `_definitions.json`.
        definitions: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Schema { definitions } => schema::generate(&definitions),
        Command::Resources { discovery } => resources::generate(&discovery),
        Command::Protobuf { source, definitions } => protobuf::generate(&source, &definitions),
    }
}
