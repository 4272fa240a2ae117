//! `trireme server`: control plane, and this server's own node unless it is disabled.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;

use super::{Failure, agent, cluster, restore};
use crate::cli::{ResetArgs, RestoreArgs, ServerArgs};
use crate::control_plane::ControlPlane;
use crate::notify;

const READY_INTERVAL: Duration = Duration::from_millis(100);

/// k3s' way of asking for a recovery: the server does that, and ends.
async fn reset(args: ServerArgs) -> Result<(), Failure> {
    let ServerArgs { data_dir, token, token_file, .. } = args;
    match args.cluster_reset_restore_path {
        Some(file) => restore::restore(&RestoreArgs { file, data_dir, token, token_file, force: true }),
        None => cluster::reset(&ResetArgs { data_dir, yes: true }).await,
    }
}

/// Flags of the node are judged before the server founds a cluster.
fn check_node_flags(args: &ServerArgs) -> Result<(), Failure> {
    if !args.disable_agent {
        return agent::options(args.agent_args(String::new(), String::new())).map(drop);
    }
    let given = [("kubelet-arg", &args.upstream.kubelet_arg), ("kube-proxy-arg", &args.upstream.kube_proxy_arg)];
    match given.iter().find_map(|(option, values)| Some((option, values.first()?))) {
        Some((option, value)) => Err(Failure::usage(format!(
            "--{option} {}={}: this server runs no node (--disable-agent); give it to the nodes",
            value.key, value.value
        ))),
        None => Ok(()),
    }
}

/// Runs a server until cancelled.
pub async fn server(args: ServerArgs, cancel: CancellationToken) -> Result<(), Failure> {
    check_node_flags(&args)?;
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
            () = tokio::time::sleep(READY_INTERVAL) => {}
            () = cancel.cancelled() => return,
        }
    }
    notify::ready();
}
