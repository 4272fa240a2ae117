//! Node IPAM: each node gets its own pod networks, cut from the cluster's.
//!
//! Owns `spec.podCIDR` and `spec.podCIDRs` of nodes that have none; a network once given is never changed.

mod pool;

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;
use trireme_client::{Client, Event, EventKind, EventRecorder, Informer, Object, Patch};

use crate::runtime::{Context, Controller, Next, Watches};
use crate::{ControllerOptions, Error};
use pool::Pool;

/// The pod network allocator.
pub(crate) struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    options: Arc<ControllerOptions>,
    /// What is in use or was given out a moment ago. Locked over choosing, so that no network is given twice.
    pool: Mutex<Option<Pool>>,
    /// Nodes for which no network was left.
    waiting: Mutex<BTreeSet<String>>,
}

impl Controller for NodeIpam {
    const NAME: &'static str = "node-controller";
    const COMPONENT: &'static str = "cidrAllocator";
    const QUEUE: &'static str = "cidrallocator_node";
    type Key = String;
    type Reads = Arc<Informer<Node>>;

    fn new(nodes: Self::Reads, context: &Context) -> Option<Self> {
        if context.options.cluster_cidrs.is_empty() {
            return None;
        }
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            nodes,
            options: Arc::clone(&context.options),
            pool: Mutex::new(None),
            waiting: Mutex::new(BTreeSet::new()),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        let ipam = Arc::downgrade(self);
        watches.on(&self.nodes, move |event| {
            let mut names = vec![event.object().name().to_owned()];
            let Some(ipam) = ipam.upgrade() else { return names };
            ipam.follow(event);
            if event.is_deletion() {
                // Its networks are free: another node may be waiting for one.
                names.extend(std::mem::take(&mut *ipam.waiting.lock()));
            }
            names
        });
    }

    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        let Some(node) = self.nodes.get("", key) else {
            self.waiting.lock().remove(key);
            // It may have been given networks after its deletion was noted.
            self.with_pool(|pool| pool.forget(key));
            return Ok(Next::Wait);
        };
        if !cidrs(&node).is_empty() {
            return Ok(Next::Wait);
        }
        let Some(chosen) = self.with_pool(|pool| pool.give(key)) else {
            self.waiting.lock().insert(key.clone());
            let message = format!("Node {key} status is now: CIDRNotAvailable");
            self.recorder.record(&*node, EventKind::Normal, "CIDRNotAvailable", message);
            return Err(Error::Invalid(format!("no pod network is left for node {key}")));
        };
        let text: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        let patch = json!({"metadata": {"uid": node.uid()}, "spec": {"podCIDR": text[0], "podCIDRs": text}});
        match self.client.patch::<Node>(None, key, &Patch::Merge(patch)).await {
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) => Err(error.into()),
        }
    }
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let listed: Vec<IpNet> = spec.pod_cidrs.iter().flatten().filter_map(|text| text.parse().ok()).collect();
    if listed.is_empty() { spec.pod_cidr.iter().filter_map(|text| text.parse().ok()).collect() } else { listed }
}

impl NodeIpam {
    /// Works on what is in use, which is read from all nodes once.
    fn with_pool<R>(&self, work: impl FnOnce(&mut Pool) -> R) -> R {
        let mut pool = self.pool.lock();
        work(pool.get_or_insert_with(|| {
            let options = &self.options;
            let mask = |cluster: &IpNet| if cluster.addr().is_ipv4() { options.node_cidr_mask_v4 } else { options.node_cidr_mask_v6 };
            let mut pool = Pool::new(options.cluster_cidrs.iter().map(|cluster| (*cluster, mask(cluster))), options.service_cidr);
            for node in self.nodes.list() {
                note(&mut pool, &node);
            }
            pool
        }))
    }

    /// Follows the nodes. Until the pool was made there is nothing to follow: it is made of the nodes as they are then.
    fn follow(&self, event: &Event<Node>) {
        let mut pool = self.pool.lock();
        let Some(pool) = &mut *pool else { return };
        match event {
            Event::Added(node) => note(pool, node),
            Event::Updated { old, new } => {
                if old.uid() != new.uid() {
                    pool.forget(old.name());
                }
                note(pool, new);
            }
            Event::Deleted(node) => pool.forget(node.name()),
        }
    }
}

/// A node without networks may have been given some a moment ago: it keeps them.
fn note(pool: &mut Pool, node: &Node) {
    let networks = cidrs(node);
    if !networks.is_empty() {
        pool.set(node.name(), networks);
    }
}
