//! Log lines to standard error: the place where systemd, containers and people expect them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging at a level (`info`) or with a filter (`info,trireme_raft=debug`).
pub fn start(level: &str) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(quiet_libraries(level))
        .map_err(|e| format!("invalid value '{level}' for '--log-level <LEVEL>': {e}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        .try_init()
        .map_err(|e| e.to_string())
}

/// A bare level is about Trireme; libraries below it speak up only when something is wrong.
fn quiet_libraries(level: &str) -> String {
    match level {
        "error" | "warn" | "info" => format!(
            "{level},openraft=warn,hyper=warn,h2=warn,rustls=warn,tonic=warn,tower=warn,netlink_packet_route=error,netlink_proto=warn"
        ),
        "debug" => "debug,openraft=info,hyper=info,h2=info,rustls=info,tonic=info,tower=info,netlink_packet_route=error,netlink_proto=warn"
            .to_owned(),
        other => other.to_owned(),
    }
}
