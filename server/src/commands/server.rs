//! `trireme server`: control plane, and this server's own node unless it is disabled.

use tokio_util::sync::CancellationToken;

use super::{Failure, agent};
use crate::{cli::ServerArgs, control_plane::ControlPlane};

/// Runs a server until cancelled.
pub async fn server(args: ServerArgs, cancel: CancellationToken) -> Result<(), Failure> {
    for flag in args.upstream.all() {
        tracing::warn!("{flag} has no counterpart here and is ignored");
    }
    ControlPlane::check(&args)?;
    let start = async {
        if !args.disable_agent {
            trireme_agent::check_first_start(&args.data_dir, &args.container_runtime_endpoint).await?;
        }
        ControlPlane::start(&args, &cancel).await
    };
    let plane = tokio::select! {
        plane = start => plane?,
        () = cancel.cancelled() => return Ok(()),
    };
    let node = if args.disable_agent {
        cancel.cancelled().await;
        Ok(())
    } else {
        let url = format!("https://127.0.0.1:{}", args.https_listen_port);
        let options = agent::options(args.agent_args(url, plane.node_token().to_owned()))?;
        trireme_agent::run(options, cancel.clone()).await
    };
    // Also when the node failed: the store must close in order.
    cancel.cancel();
    plane.stop().await;
    Ok(node?)
}
