//! Keeps the table in step with the cluster.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_client::{Event, Index, Informer, ObjectKey};
use trireme_nft::{Family, OwnedTable, conntrack};

use crate::{
    Error,
    dirty::Dirty,
    loaded::{Loaded, Part},
    metrics::Metrics,
    ruleset::{self, NodeView},
    services, skeleton,
    topology::Here,
};

/// The least time between two transactions. A change after a quiet time is written at once; what arrives after it goes into one transaction.
const COALESCE: Duration = Duration::from_millis(5);
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
    slices_by_service: Index<EndpointSlice>,
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
        let slices_by_service = services::by_service(&slices);
        Self { options, services, slices, slices_by_service, nodes, healthy: watch::Sender::new(false), metrics: Metrics::new() }
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
        let dirty = self.watch_changes();
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
            let synced = self.sync(&mut table, &mut loaded, &dirty).await;
            self.metrics.synced(synced.is_ok(), all, began.elapsed());
            // With very many Services a transaction takes longer than the pause: at most half of the time goes into them.
            let next = Instant::now() + COALESCE.max(began.elapsed());
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
                () = dirty.changed() => tokio::time::sleep_until(next).await,
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

    /// Follows the informers: which Services are to be looked at again.
    fn watch_changes(&self) -> Arc<Dirty> {
        let dirty = Arc::new(Dirty::default());
        let (metrics, marks) = (self.metrics.clone(), dirty.clone());
        self.services.on_event(move |event| {
            metrics.service_changes.inc();
            metrics.queued();
            marks.mark(ObjectKey::of(event.object().as_ref()));
        });
        let (metrics, marks) = (self.metrics.clone(), dirty.clone());
        self.slices.on_event(move |event| {
            metrics.endpoint_changes.inc();
            metrics.queued();
            event.versions().filter_map(|slice| services::service_of(slice)).for_each(|key| marks.mark(key));
        });
        // The node's own zone decides which endpoints are near.
        let (name, marks) = (self.options.node_name.clone(), dirty.clone());
        self.nodes.on_event(move |event| {
            let is_here = event.object().metadata.name.as_deref() == Some(name.as_str());
            let is_moved = !matches!(event, Event::Updated { old, new } if zone(old) == zone(new));
            if is_here && is_moved {
                marks.mark_all();
            }
        });
        dirty
    }

    fn here(&self) -> Here {
        let node = self.nodes.get("", &self.options.node_name);
        Here { node: self.options.node_name.clone(), zone: node.and_then(|node| zone(&node)) }
    }

    fn set_healthy(&self, now: bool) {
        self.healthy.send_if_modified(|healthy| std::mem::replace(healthy, now) != now);
    }

    async fn sync(&self, table: &mut OwnedTable, loaded: &mut Option<Loaded>, dirty: &Dirty) -> Result<(), Error> {
        let view = self.view();
        // Marks are taken before the Services are read: what changes in between is marked again.
        let marked = dirty.take();
        let mut transaction = table.transaction();
        let mut known = loaded.take().unwrap_or_else(|| {
            skeleton::lay(&mut transaction, &view);
            Loaded::default()
        });
        let keys = match marked.filter(|_| transaction.is_empty()) {
            Some(marked) => marked,
            None => self.services.list().iter().map(|service| ObjectKey::of(service.as_ref())).chain(known.keys().cloned()).collect(),
        };
        let here = self.here();
        let changes: BTreeMap<ObjectKey, Part> = keys.into_iter().map(|key| (key.clone(), self.part(&key, &here, &view))).collect();
        let (old, new) = known.difference(&changes);
        ruleset::difference(&mut transaction, &old, &new);
        if !transaction.is_empty() {
            table.commit(&transaction).await?;
        }
        let gone = known.apply(changes);
        *loaded = Some(known);
        for address in gone {
            conntrack::forget_udp_to(address).await;
        }
        Ok(())
    }

    fn view(&self) -> NodeView {
        NodeView {
            cluster_cidr: self.options.cluster_cidr,
            service_cidr: self.options.service_cidr,
            node_port_networks: self.options.node_port_networks.clone(),
            translated: self.options.translated,
        }
    }

    fn part(&self, key: &ObjectKey, here: &Here, view: &NodeView) -> Part {
        let Some(service) = self.services.get_key(key) else { return Part::default() };
        let slices = self.slices_by_service.get(&key.to_string());
        Part::of(&services::balanced_ports(&service, &slices, here), view)
    }
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}
