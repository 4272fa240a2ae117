//! The `trireme` binary: parses, sets up logging, dispatches. No logic of its own.

mod cli;
mod commands;
mod config;
mod control_plane;
mod logging;
mod notify;
mod panics;
mod snapshots;

use std::{ffi::OsString, future::Future, path::Path, process::ExitCode};

use clap::{CommandFactory, Parser, error::ErrorKind};
use tokio_util::sync::CancellationToken;

use cli::{Cli, Command};

/// The version that clients see: Kubernetes' API level and ours.
pub const VERSION: &str = "v1.36.2+trireme1";

/// Exit code of a wrong command line or configuration.
const USAGE: u8 = 2;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // containerd executes CNI plugins by name; two of those names are ours.
    let called_as = args.first().and_then(|a| Path::new(a).file_name()?.to_str().map(str::to_owned)).unwrap_or_default();
    if called_as == trireme_agent::CNI_PLUGIN || called_as == trireme_agent::CNI_LOOPBACK {
        return trireme_agent::cni_plugin(&called_as);
    }
    let merged = match config::with_file(args.clone(), cli::CONFIG_FILE) {
        Ok(merged) => merged,
        Err(error) => return complain(&error.to_string(), USAGE),
    };
    match Cli::try_parse_from(&merged.args) {
        Ok(cli) => dispatch(cli.command),
        Err(error) if is_help(&error) => show(&error),
        Err(error) => {
            // If the arguments are valid without the configuration file, the error is in the file.
            let place = merged.file.filter(|_| Cli::try_parse_from(args).is_ok());
            let place = place.map(|file| format!("config file {file}: ")).unwrap_or_default();
            complain(&format!("{place}{}", commands::one_line(&error)), USAGE)
        }
    }
}

fn dispatch(command: Command) -> ExitCode {
    match command {
        Command::Version => {
            println!("trireme {VERSION}");
            ExitCode::SUCCESS
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "trireme", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::CheckConfig { config } => match commands::check_config(&config) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(message) => complain(&message, USAGE),
        },
        Command::CheckHost(args) => run("error", |_| commands::check_host(args)),
        Command::Cleanup { data_dir, container_runtime_endpoint, cgroup_root } => {
            run("warn", |_| async move { commands::cleanup(&data_dir, &container_runtime_endpoint, &cgroup_root).await })
        }
        Command::Snapshot(command) => run("error", |_| commands::snapshot(command)),
        Command::Cluster(command) => run("error", |_| commands::cluster(command)),
        Command::Member(command) => run("error", |_| commands::member(command)),
        Command::Token(command) => run("error", |_| commands::tokens(command)),
        Command::Certificate(command) => run("error", |_| commands::certificates(command)),
        Command::Policy(command) => run("error", |_| commands::policy(command)),
        Command::SecretsEncrypt(command) => run("error", |_| commands::secrets(command)),
        Command::Server(args) => {
            let level = args.upstream.log_filter(&args.log_level);
            run(&level, |cancel| commands::server(*args, cancel))
        }
        Command::Agent(args) => {
            let level = args.log_level.clone();
            run(&level, |cancel| commands::agent(*args, cancel))
        }
    }
}

/// Runs a command that works until it is told to stop.
fn run<F>(log_level: &str, command: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), commands::Failure>>,
{
    if let Err(message) = logging::start(log_level) {
        return complain(&message, USAGE);
    }
    panics::install();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return complain("a second TLS provider is installed", 1);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("trireme").build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("start worker threads: {error}"), 1),
    };
    let cancel = CancellationToken::new();
    let result = runtime.block_on(async {
        let on_signal = cancel.clone();
        tokio::spawn(async move {
            stop_signal().await;
            tracing::info!("stopping");
            notify::stopping();
            on_signal.cancel();
        });
        command(cancel.clone()).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure.message, if failure.usage { USAGE } else { 1 }),
    }
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn is_help(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
}

fn show(help: &clap::Error) -> ExitCode {
    if help.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The one line that says why this process ends. Log lines may stand before it; none begins with `trireme:`.
fn complain(message: &str, code: u8) -> ExitCode {
    let line = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    eprintln!("trireme: {line}");
    ExitCode::from(code)
}
