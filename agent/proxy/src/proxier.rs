//! Keeps the table in step with the cluster.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_client::{Event, Informer};
use trireme_nft::{Family, OwnedTable, conntrack};

use crate::{
    Error,
    metrics::Metrics,
    ruleset::{self, NodeView, RuleSet},
    services::{self, Balanced, Protocol},
    topology::Here,
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
    /// Addresses of Services.
    pub service_cidr: Option<Ipv4Net>,
    /// Networks of this node's addresses at which node ports are served; empty for all of them.
    pub node_port_networks: Vec<Ipv4Net>,
    /// This node's external address, if it has one, and the address that it has itself.
    pub translated: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// The service proxy of one node.
pub struct Proxier {
    options: ProxyOptions,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    nodes: Arc<Informer<Node>>,
    healthy: watch::Sender<bool>,
    metrics: Metrics,
}

impl Proxier {
    /// Takes the informers that the node's parts share.
    pub fn new(
        options: ProxyOptions,
        services: Arc<Informer<Service>>,
        slices: Arc<Informer<EndpointSlice>>,
        nodes: Arc<Informer<Node>>,
    ) -> Self {
        Self { options, services, slices, nodes, healthy: watch::Sender::new(false), metrics: Metrics::new() }
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
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), Error> {
        let mut table = OwnedTable::new(Family::Ip, ruleset::TABLE)?;
        let (poke, mut poked) = mpsc::channel(1);
        let (also, moved) = (poke.clone(), poke.clone());
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
        // The node's own zone decides which endpoints are near.
        let name = self.options.node_name.clone();
        self.nodes.on_event(move |event| {
            let is_here = event.object().metadata.name.as_deref() == Some(name.as_str());
            let is_moved = !matches!(event, Event::Updated { old, new } if zone(old) == zone(new));
            if is_here && is_moved {
                let _ = moved.try_send(());
            }
        });
        // Old rules stay in force until both informers know the whole cluster: never program half of it.
        tokio::select! {
            () = async { self.services.wait_synced().await; self.slices.wait_synced().await; } => {}
            () = cancel.cancelled() => return Ok(()),
        }
        let mut loaded: Option<Loaded> = None;
        loop {
            if loaded.is_some() && !table.is_intact() {
                self.set_healthy(false);
                loaded = None;
            }
            let (began, all) = (Instant::now(), loaded.is_none());
            let synced = self.sync(&mut table, &mut loaded).await;
            self.metrics.synced(synced.is_ok(), all, began.elapsed());
            let wait = match synced {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "service rules not in step, loading all of them again");
                    loaded = None;
                    Some(RETRY)
                }
            };
            self.set_healthy(wait.is_none());
            tokio::select! {
                _ = poked.recv() => tokio::time::sleep(COALESCE).await,
                () = table.disturbed(), if wait.is_none() => {
                    self.set_healthy(false);
                    tracing::warn!("somebody else changed or removed the service rules, loading all of them again");
                    loaded = None;
                    // Repeated changes by another program are answered no more often than this.
                    tokio::time::sleep(COALESCE).await;
                }
                () = async { if let Some(wait) = wait { tokio::time::sleep(wait).await } else { std::future::pending().await } } => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    fn here(&self) -> Here {
        let node = self.nodes.get("", &self.options.node_name);
        Here { node: self.options.node_name.clone(), zone: node.and_then(|node| zone(&node)) }
    }

    fn set_healthy(&self, now: bool) {
        self.healthy.send_if_modified(|healthy| std::mem::replace(healthy, now) != now);
    }

    async fn sync(&self, table: &mut OwnedTable, loaded: &mut Option<Loaded>) -> Result<(), Error> {
        let view = NodeView {
            cluster_cidr: self.options.cluster_cidr,
            service_cidr: self.options.service_cidr,
            node_port_networks: self.options.node_port_networks.clone(),
            translated: self.options.translated,
        };
        let (services, slices) = (self.services.list(), self.slices.list());
        let balanced = services::collect(services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref), &self.here());
        let rules = ruleset::build(&balanced, &view);
        let udp = udp_endpoints(&balanced);
        let mut transaction = table.transaction();
        match loaded {
            Some(old) => ruleset::difference(&mut transaction, &old.rules, &rules),
            None => {
                ruleset::skeleton(&mut transaction, &view);
                ruleset::difference(&mut transaction, &RuleSet::default(), &rules);
            }
        }
        if !transaction.is_empty() {
            table.commit(&transaction).await?;
        }
        let gone: Vec<Ipv4Addr> = loaded.iter().flat_map(|old| old.udp.difference(&udp)).copied().collect();
        *loaded = Some(Loaded { rules, udp });
        for address in gone {
            conntrack::forget_udp_to(address).await;
        }
        Ok(())
    }
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
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
