//! Runs nft: one script, one atomic transaction.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

use crate::Error;

/// Loads a script; on error nothing of it was applied.
pub async fn load(script: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).await.map_err(Error::Run)?;
    }
    let output = child.wait_with_output().await.map_err(Error::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let message: String = String::from_utf8_lossy(&output.stderr).lines().take(3).collect::<Vec<_>>().join("; ");
    Err(Error::Refused(message))
}

/// Forgets the UDP flows to an endpoint that is gone: without a handshake they would stick to it.
pub async fn forget_udp(address: std::net::Ipv4Addr) {
    let status = Command::new("conntrack")
        .args(["-D", "-p", "udp", "--dst-nat", &address.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    if let Err(error) = status {
        tracing::warn!(%error, "conntrack could not be run: UDP clients of {address} wait for a time-out");
    }
}
