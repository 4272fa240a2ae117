//! `trireme agent`: from its options to a running node.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Taint;
use tokio_util::sync::CancellationToken;
use trireme_agent::AgentOptions;

use super::Failure;
use crate::{
    cli::{AgentArgs, TaintArg},
    notify,
};

/// The one kube-proxy flag that has its counterpart here.
pub const METRICS_BIND_ADDRESS: &str = "metrics-bind-address";

/// Runs a node until cancelled.
pub async fn agent(args: AgentArgs, cancel: CancellationToken) -> Result<(), Failure> {
    let mut options = options(args)?;
    options.own_process = true;
    Ok(trireme_agent::run(options, notify::ready, cancel).await?)
}

/// The agent's options from the command line's.
pub fn options(args: AgentArgs) -> Result<AgentOptions, Failure> {
    let (known, unknown): (Vec<_>, Vec<_>) = args.kube_proxy_arg.iter().partition(|a| a.key == METRICS_BIND_ADDRESS);
    let proxy_metrics = known.last().map_or(Ok(trireme_agent::PROXY_METRICS), |arg| metrics_address(&arg.value))?;
    for flag in args.kubelet_arg.iter().map(|a| ("kubelet", a)).chain(unknown.into_iter().map(|a| ("kube-proxy", a))) {
        tracing::warn!("{} flag --{}={} has no counterpart here and is ignored", flag.0, flag.1.key, flag.1.value);
    }
    Ok(AgentOptions {
        token: token(args.token, args.token_file.as_deref())?,
        server: args.server,
        data_dir: args.data_dir,
        node_name: args.node_name,
        node_ip: args.node_ip,
        node_external_ip: args.node_external_ip,
        labels: args.node_label.into_iter().map(|l| (l.key, l.value)).collect(),
        taints: args.node_taint.into_iter().map(taint).collect(),
        runtime_endpoint: args.container_runtime_endpoint,
        cgroup_root: args.cgroup_root,
        version: crate::VERSION.to_owned(),
        proxy_metrics,
        own_process: false,
    })
}

/// `ADDRESS` or `ADDRESS:PORT`, as kube-proxy takes it.
fn metrics_address(value: &str) -> Result<SocketAddr, Failure> {
    let with_port = value.parse::<SocketAddr>().ok();
    let address = with_port.or_else(|| Some(SocketAddr::new(value.parse::<IpAddr>().ok()?, trireme_agent::PROXY_METRICS.port())));
    address.ok_or_else(|| {
        Failure::usage(format!("--kube-proxy-arg {METRICS_BIND_ADDRESS}={value}: expected ADDRESS:PORT such as 0.0.0.0:10249"))
    })
}

/// The token: given, or in a file.
pub fn token(given: Option<String>, file: Option<&std::path::Path>) -> Result<Option<String>, Failure> {
    let Some(file) = file else { return Ok(given) };
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("--token-file {}: {e}", file.display())))?;
    Ok(Some(text.trim().to_owned()))
}

fn taint(arg: TaintArg) -> Taint {
    Taint { key: arg.key, value: Some(arg.value).filter(|v| !v.is_empty()), effect: arg.effect, time_added: None }
}
