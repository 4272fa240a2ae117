//! The token files of this server follow what is in force in the cluster; the leader removes expired tokens.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use trireme_cluster::tokens::LiveTokens;

use super::membership;
use crate::commands::Failure;

/// A rotation through another server shows here no later. A look costs one read of the local state.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Tokens that are over are refused at once; they need not go at once.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// Rewrites the files whenever the server secret changes. Runs until dropped.
pub async fn follow(tokens: LiveTokens, server_dir: PathBuf, ca_fingerprint: String) {
    let mut changes = tokens.changes();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(POLL_INTERVAL) => {
                if let Err(error) = tokens.refresh() {
                    tracing::debug!(%error, "the server token in force is not known");
                }
                if !changes.has_changed().unwrap_or(false) {
                    continue;
                }
                changes.mark_unchanged();
            }
        }
        let write = || -> Result<(), Failure> {
            let current = tokens.current()?;
            current.write(&server_dir, &ca_fingerprint)?;
            membership::keep_secret(&server_dir, current.server_secret())
        };
        match write() {
            Ok(()) => tracing::info!("another server token is in force: the token files are rewritten"),
            Err(failure) => tracing::error!(reason = failure.message, "the token files are not rewritten"),
        }
    }
}

/// Removes expired tokens while this server leads.
pub async fn clean_up(tokens: &LiveTokens, stop: CancellationToken) {
    loop {
        if let Err(error) = tokens.clean_up(Timestamp::now()).await {
            tracing::debug!(%error, "expired tokens are not removed yet");
        }
        tokio::select! {
            () = tokio::time::sleep(CLEAN_UP) => {}
            () = stop.cancelled() => return,
        }
    }
}
