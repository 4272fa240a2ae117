//! When this node answers cluster DNS: as long as the Service that has the DNS address is marked as answered by the nodes.
//!
//! The address is on the loopback link, so it needs no pod network of ours and stays when that is another's. When another DNS is
//! deployed, its Service takes the address without the mark, and the node stops answering.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trireme_client::Informer;
use trireme_cni::netlink::Netlink;
use trireme_dns::{Cluster, DnsOptions, forward::Forwarder};
use trireme_proxy::services::is_answered_by_nodes;

use crate::error::Error;

/// The link that carries the address.
pub(crate) const LINK: &str = "lo";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RETRY: Duration = Duration::from_secs(5);

/// Cluster DNS of one node.
pub(crate) struct ClusterDns {
    address: Ipv4Addr,
    domain: String,
    netlink: Netlink,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
}

impl ClusterDns {
    pub(crate) fn new(
        address: Ipv4Addr,
        domain: &str,
        services: &Arc<Informer<Service>>,
        slices: &Arc<Informer<EndpointSlice>>,
    ) -> Result<Self, Error> {
        let netlink = Netlink::connect()?;
        Ok(Self { address, domain: domain.to_owned(), netlink, services: services.clone(), slices: slices.clone() })
    }

    /// Answers while the Service is marked as answered by the nodes, until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let cluster = Arc::new(Cluster::default());
        cluster.follow(&self.services, &self.slices);
        let (poke, mut poked) = mpsc::channel(1);
        self.services.on_event(move |_| {
            let _ = poke.try_send(());
        });
        // The address is there if this node answered before the agent's restart: then it answers other names before it reaches any
        // server.
        let mut is_wanted = self.netlink.has_address(LINK, self.address.into()).await.unwrap_or_default();
        let synced = async {
            self.services.wait_synced().await;
            self.slices.wait_synced().await;
            cluster.set_complete();
        };
        let mut synced = std::pin::pin!(synced);
        let mut is_synced = false;
        loop {
            let change = async {
                loop {
                    tokio::select! {
                        () = &mut synced, if !is_synced => is_synced = true,
                        _ = poked.recv(), if is_synced => {}
                    }
                    let now = self.is_answered_here();
                    if now != is_wanted {
                        return now;
                    }
                }
            };
            let next = tokio::select! {
                next = change => next,
                () = self.serve_if(is_wanted, &cluster) => continue,
                () = cancel.cancelled() => return,
            };
            is_wanted = next;
        }
    }

    fn is_answered_here(&self) -> bool {
        let address = self.address.to_string();
        let has_address = |s: &Arc<Service>| s.spec.as_ref().and_then(|s| s.cluster_ip.as_ref()).is_some_and(|ip| *ip == address);
        self.services.list().iter().any(|service| has_address(service) && is_answered_by_nodes(service))
    }

    /// Serves until dropped; returns only to be called again. Without `is_wanted` it takes the address away and waits.
    async fn serve_if(&self, is_wanted: bool, cluster: &Arc<Cluster>) {
        let address = Ipv4Net::from(self.address);
        if !is_wanted {
            if let Err(error) = self.netlink.delete_address(LINK, address).await {
                tracing::warn!(%error, "the address of cluster DNS is still on this node");
                return tokio::time::sleep(RETRY).await;
            }
            return std::future::pending().await;
        }
        if let Err(error) = self.netlink.add_address(LINK, address).await {
            tracing::error!(%error, "cluster DNS does not answer on this node, trying again");
            return tokio::time::sleep(RETRY).await;
        }
        let options = DnsOptions {
            address: (self.address, 53).into(),
            domain: self.domain.clone(),
            forwarder: Forwarder::from_resolv_conf(Path::new(RESOLV_CONF), &[self.address.into()]),
        };
        if let Err(error) = trireme_dns::serve(options, cluster.clone(), CancellationToken::new()).await {
            tracing::error!(%error, "cluster DNS does not answer on this node, trying again");
        }
        tokio::time::sleep(RETRY).await;
    }
}
