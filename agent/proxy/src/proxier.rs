//! Keeps the table in step with the cluster.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_client::Informer;

use crate::{
    Error,
    metrics::Metrics,
    nft,
    ruleset::{self, NodeView, RuleSet},
    services::{self, Balanced, Protocol},
};

/// Changes that arrive within this time go into one transaction.
const COALESCE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);

/// What the proxy is told at start.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// This node's name: endpoints on it are local.
    pub node_name: String,
    /// All pods of the cluster: traffic from elsewhere is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// Cluster IPs that this node answers itself.
    pub answered_here: Vec<Ipv4Addr>,
}

/// The service proxy of one node.
pub struct Proxier {
    options: ProxyOptions,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    healthy: watch::Sender<bool>,
    metrics: Metrics,
}

impl Proxier {
    /// Takes the informers that the node's parts share.
    pub fn new(options: ProxyOptions, services: Arc<Informer<Service>>, slices: Arc<Informer<EndpointSlice>>) -> Self {
        Self { options, services, slices, healthy: watch::Sender::new(false), metrics: Metrics::new() }
    }

    /// Whether the kernel's rules are in step with what the informers know.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Programs the kernel until cancelled. The rules stay when it ends: traffic must not stop with the agent.
    pub async fn run(&self, cancel: CancellationToken) {
        let (poke, mut poked) = mpsc::channel(1);
        let also = poke.clone();
        let (services, slices) = (self.metrics.clone(), self.metrics.clone());
        self.services.on_event(move |_| {
            services.service_changes.inc();
            services.queued();
            let _ = poke.try_send(());
        });
        self.slices.on_event(move |_| {
            slices.endpoint_changes.inc();
            slices.queued();
            let _ = also.try_send(());
        });
        // Old rules stay in force until both informers know the whole cluster: never program half of it.
        tokio::select! {
            () = async { self.services.wait_synced().await; self.slices.wait_synced().await; } => {}
            () = cancel.cancelled() => return,
        }
        let mut loaded: Option<Loaded> = None;
        loop {
            let (began, all) = (Instant::now(), loaded.is_none());
            let synced = self.sync(&mut loaded).await;
            self.metrics.synced(synced.is_ok(), all, began.elapsed());
            let wait = match synced {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "service rules not in step, loading all of them again");
                    loaded = None;
                    Some(RETRY)
                }
            };
            self.healthy.send_if_modified(|healthy| std::mem::replace(healthy, wait.is_none()) != wait.is_none());
            tokio::select! {
                _ = poked.recv() => tokio::time::sleep(COALESCE).await,
                () = async { if let Some(wait) = wait { tokio::time::sleep(wait).await } else { std::future::pending().await } } => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn sync(&self, loaded: &mut Option<Loaded>) -> Result<(), Error> {
        let view = NodeView { cluster_cidr: self.options.cluster_cidr, answered_here: self.options.answered_here.clone() };
        let (services, slices) = (self.services.list(), self.slices.list());
        let balanced = services::collect(services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref), &self.options.node_name);
        let rules = ruleset::build(&balanced, &view);
        let udp = udp_endpoints(&balanced);
        let script = match loaded {
            Some(old) => ruleset::difference(&old.rules, &rules),
            None => ruleset::skeleton(&view) + &ruleset::difference(&RuleSet::default(), &rules),
        };
        if !script.is_empty() {
            nft::load(&script).await?;
        }
        let gone: Vec<Ipv4Addr> = loaded.iter().flat_map(|old| old.udp.difference(&udp)).copied().collect();
        *loaded = Some(Loaded { rules, udp });
        for address in gone {
            nft::forget_udp(address).await;
        }
        Ok(())
    }
}

/// What the kernel holds.
struct Loaded {
    rules: RuleSet,
    udp: BTreeSet<Ipv4Addr>,
}

fn udp_endpoints(services: &[Balanced]) -> BTreeSet<Ipv4Addr> {
    let udp = services.iter().filter(|s| s.protocol == Protocol::Udp);
    udp.flat_map(|s| s.internal.iter().chain(&s.external)).map(|t| t.address).collect()
}
