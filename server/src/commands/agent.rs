//! `trireme agent`: from its options to a running node.

use k8s_openapi::api::core::v1::Taint;
use tokio_util::sync::CancellationToken;
use trireme_agent::{
    AgentOptions,
    options::{KubeletFlags, ProxyFlags},
};

use super::Failure;
use crate::{
    cli::{AgentArgs, Label, TaintArg},
    notify,
};

/// Runs a node until cancelled.
pub async fn agent(args: AgentArgs, cancel: CancellationToken) -> Result<(), Failure> {
    let mut options = options(args)?;
    options.own_process = true;
    Ok(trireme_agent::run(options, notify::ready, cancel).await?)
}

/// The agent's options from the command line's.
pub fn options(args: AgentArgs) -> Result<AgentOptions, Failure> {
    let kubelet = KubeletFlags::parse(pairs(&args.kubelet_arg)).map_err(Failure::usage)?;
    let proxy = ProxyFlags::parse(pairs(&args.kube_proxy_arg), args.node_ip).map_err(Failure::usage)?;
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
        kubelet,
        proxy,
        own_process: false,
    })
}

fn pairs(labels: &[Label]) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().map(|label| (label.key.as_str(), label.value.as_str()))
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
