//! The pod network of a node: bridge, tunnel and routes, the CNI plugin, and the way through the host's firewall.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::Informer;
use trireme_cni::{Backend, Network, NetworkOptions, gate::Gate, netlink::Netlink, network};
use trireme_nft::firewall::{self, Openings};

use crate::{
    error::Error,
    journal::{HostObject, Journal},
};

/// The CNI plugin's socket, below the agent's folder.
pub(crate) const CNI_SOCKET: &str = "cni.sock";
/// Changes of the host's rules are looked at together, at most this often: services change many times a second.
const LOOK_AT_FIREWALL: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(10);

pub(crate) fn options(agent_dir: &Path, node_name: String, node_ip: Ipv4Addr, backend: Backend, owns_links: bool) -> NetworkOptions {
    NetworkOptions { node_name, node_ip, backend, folder: agent_dir.join("cni/addresses"), owns_links }
}

/// Starts the node's own pod network.
pub(crate) async fn start(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    agent_dir: &Path,
    options: NetworkOptions,
    gate: Option<Arc<dyn Gate>>,
    nodes: &Arc<Informer<Node>>,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let network = Network::new(options, gate).await?;
    for link in [network::BRIDGE, network::TUNNEL] {
        journal.note(HostObject::Link(link.into()))?;
    }
    let socket = agent_dir.join(CNI_SOCKET);
    let listener = trireme_cni::server::bind(&socket)?;
    parts.spawn(trireme_cni::server::serve(listener, network.clone(), cancel.clone()));
    let (running, nodes, stop) = (network.clone(), nodes.clone(), cancel.clone());
    parts.spawn(async move { running.run(nodes, stop).await });
    let (binary, dir) = (own_binary()?, agent_dir.to_owned());
    parts.spawn(async move {
        // The runtime reports its network ready when it sees the configuration: not before it is.
        network.wait_ready().await;
        if let Err(error) = install_plugin(&dir, &binary) {
            tracing::error!(%error, "CNI configuration not installed: no pod can start");
        }
    });
    Ok(())
}

fn own_binary() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(|e| Error::Host(format!("own binary: {e}")))
}

fn install_plugin(agent_dir: &Path, binary: &Path) -> Result<(), Error> {
    let cni = agent_dir.join("cni");
    Ok(trireme_cni::plugin::install(&cni.join("net.d"), &cni.join("bin"), &agent_dir.join(CNI_SOCKET), binary)?)
}

/// Lets the plugin be this program, where one was installed: a package that is purged has removed its own program before.
pub(crate) fn adopt_plugin(agent_dir: &Path) -> Result<(), Error> {
    if agent_dir.join("cni/bin").exists() { install_plugin(agent_dir, &own_binary()?) } else { Ok(()) }
}

/// Lets a host without a default route reach Services: the kernel must find some route before the rules rewrite the address.
pub(crate) async fn add_service_route(journal: &mut Journal, services: Ipv4Net, node_ip: Ipv4Addr) -> Result<(), Error> {
    journal.note(HostObject::ServiceRoute(services.to_string()))?;
    if let Err(error) = Netlink::connect()?.ensure_fallback_route(services, node_ip).await {
        tracing::warn!(%error, "without a default route this host does not reach Services");
    }
    Ok(())
}

/// Keeps the host's firewall open for pods until cancelled, also when it is loaded anew.
pub(crate) async fn keep_firewall_open(openings: Openings, cancel: CancellationToken) {
    let Some(changes) = cancel.run_until_cancelled(subscribe()).await else { return };
    let mut is_said = false;
    loop {
        let wait = match firewall::open(&openings).await {
            Ok(_) => {
                is_said = false;
                None
            }
            Err(error) => {
                if !std::mem::replace(&mut is_said, true) {
                    tracing::warn!(%error, "the host's firewall may drop the traffic of pods");
                }
                Some(RETRY)
            }
        };
        let again = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => drop(changes.next().await),
            }
            tokio::time::sleep(LOOK_AT_FIREWALL).await;
        };
        tokio::select! {
            () = again => drop(changes.drain()),
            () = cancel.cancelled() => return,
        }
    }
}

async fn subscribe() -> trireme_nft::events::Events {
    loop {
        match firewall::changes() {
            Ok(changes) => return changes,
            Err(error) => {
                tracing::warn!(%error, "the host's firewall is not followed, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_plugin_whose_program_is_gone_is_this_program_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        adopt_plugin(dir.path()).unwrap();
        assert!(!dir.path().join("cni").exists(), "where the pod network is another's nothing is installed");
        install_plugin(dir.path(), Path::new("/usr/bin/removed")).unwrap();
        adopt_plugin(dir.path()).unwrap();
        for name in [trireme_cni::plugin::PLUGIN, trireme_cni::plugin::LOOPBACK] {
            assert_eq!(std::fs::read_link(dir.path().join("cni/bin").join(name)).unwrap(), std::env::current_exe().unwrap());
        }
    }
}
