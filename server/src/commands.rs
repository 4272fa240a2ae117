//! What each subcommand does, from parsed options to an exit. The only place that knows both the command line and the
//! parts it starts.

pub mod admin_client;
mod agent;
mod certificates;
mod check_host;
mod cluster;
mod member;
mod policy;
mod restore;
mod secrets;
mod server;
mod snapshot;
pub mod table;
mod tokens;

use std::path::Path;

pub use agent::{agent, token};
pub use certificates::certificates;
pub use check_host::check_host;
pub use cluster::cluster;
pub use member::member;
pub use policy::policy;
pub use secrets::secrets;
pub use server::server;
pub use snapshot::snapshot;
pub use tokens::tokens;

/// Why a command failed: one line for a person.
#[derive(Debug)]
pub struct Failure {
    /// What, where, and what to do.
    pub message: String,
    /// Whether the command line or configuration is to blame (exit code 2).
    pub usage: bool,
}

impl Failure {
    /// A wrong option or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), usage: true }
    }
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), usage: false }
    }
}

/// Checks a configuration file as `server` would read it, or as `agent` would if it names options of a node only.
pub fn check_config(path: &Path) -> Result<String, String> {
    use clap::Parser;
    let settings = crate::config::read(path).map_err(|e| e.to_string())?;
    let flags: Vec<String> = settings.iter().map(|(k, v)| v.as_ref().map_or(format!("--{k}"), |v| format!("--{k}={v}"))).collect();
    let parse = |sub: &str| crate::cli::Cli::try_parse_from(["trireme", sub].into_iter().map(str::to_owned).chain(flags.clone()));
    match (parse("server"), parse("agent")) {
        (Ok(_), _) | (_, Ok(_)) => Ok(format!("{}: {} settings, no error", path.display(), settings.len())),
        (Err(error), _) => Err(format!("config file {}: {}", path.display(), one_line(&error))),
    }
}

/// Reduces clap's long error to the lines that a user needs: the mistake, and the suggestion.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let telling = lines.take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more"));
    telling.map(|l| l.trim_start_matches("error: ").trim_start_matches("tip: ")).collect::<Vec<_>>().join("; ")
}

/// Takes a stopped node off this host.
pub async fn cleanup(data_dir: &Path, runtime: &Path, cgroup_root: &str) -> Result<(), Failure> {
    Ok(trireme_agent::cleanup::cleanup(data_dir, runtime, cgroup_root).await?)
}
