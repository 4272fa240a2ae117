//! `trireme server`: control plane, and this server's own node unless it is disabled.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;

use super::{Failure, agent, cluster, restore};
use crate::{
    cli::{ResetArgs, RestoreArgs, ServerArgs},
    control_plane::ControlPlane,
    notify,
};

const READY_LOOK: Duration = Duration::from_millis(100);

/// k3s' way of asking for a recovery: the server does that, and ends.
async fn reset(args: ServerArgs) -> Result<(), Failure> {
    let ServerArgs { data_dir, token, token_file, .. } = args;
    match args.cluster_reset_restore_path {
        Some(file) => restore::restore(&RestoreArgs { file, data_dir, token, token_file, force: true }),
        None => cluster::reset(&ResetArgs { data_dir, yes: true }).await,
    }
}

/// Runs a server until cancelled.
pub async fn server(args: ServerArgs, cancel: CancellationToken) -> Result<(), Failure> {
    for flag in args.upstream.without_counterpart(!args.disable_agent) {
        tracing::warn!("{flag} has no counterpart here and is ignored");
    }
    if args.cluster_reset {
        return reset(args).await;
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
    tokio::spawn(tell_when_ready(plane.api().clone(), cancel.clone()));
    let node = if args.disable_agent {
        cancel.cancelled().await;
        Ok(())
    } else {
        let url = args.local_url();
        let options = agent::options(args.agent_args(url, plane.own_node_token().to_owned()))?;
        trireme_agent::run(options, || {}, cancel.clone()).await
    };
    // Also when the node failed: the store must close in order.
    cancel.cancel();
    plane.stop().await;
    Ok(node?)
}

/// Tells the service manager once `/readyz` passes for the first time.
async fn tell_when_ready(api: ApiServer, cancel: CancellationToken) {
    while !api.is_ready() {
        tokio::select! {
            () = tokio::time::sleep(READY_LOOK) => {}
            () = cancel.cancelled() => return,
        }
    }
    notify::ready();
}
