//! Node IPAM: each node gets its own pod networks, cut from the cluster's.
//!
//! Owns `spec.podCIDR` and `spec.podCIDRs` of nodes that have none; a network once given is never changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;
use trireme_client::{Client, EventKind, EventRecorder, Informer, Object, Patch};

use crate::runtime::{Context, Controller, Next, Watches};
use crate::{ControllerOptions, Error};

/// The pod network allocator.
pub(crate) struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
    nodes: Arc<Informer<Node>>,
    options: Arc<ControllerOptions>,
    /// Given out, but perhaps not yet in the cache. Locked over choosing, so that no network is given twice.
    given: Mutex<HashMap<String, Vec<IpNet>>>,
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
            given: Mutex::new(HashMap::new()),
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, String>) {
        let all = Arc::clone(&self.nodes);
        watches.on(&self.nodes, move |event| {
            let mut names = vec![event.object().name().to_owned()];
            if event.is_deletion() {
                // Its networks are free: another node may be waiting for one.
                names.extend(all.list().iter().filter(|node| cidrs(node).is_empty()).map(|node| node.name().to_owned()));
            }
            names
        });
    }

    async fn reconcile(&self, key: &String) -> Result<Next, Error> {
        let Some(node) = self.nodes.get("", key) else {
            self.given.lock().remove(key);
            return Ok(Next::Wait);
        };
        if !cidrs(&node).is_empty() {
            self.given.lock().remove(key);
            return Ok(Next::Wait);
        }
        let Some(chosen) = self.choose(key) else {
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
    /// One network of each family; the same again if it was chosen before.
    fn choose(&self, node: &str) -> Option<Vec<IpNet>> {
        let mut given = self.given.lock();
        if let Some(before) = given.get(node) {
            return Some(before.clone());
        }
        let used: Vec<IpNet> = self
            .nodes
            .list()
            .iter()
            .flat_map(|node| cidrs(node))
            .chain(given.values().flatten().copied())
            .chain(self.options.service_cidr)
            .collect();
        let chosen: Vec<IpNet> = self
            .options
            .cluster_cidrs
            .iter()
            .map(|cluster| {
                let mask = match cluster {
                    IpNet::V4(_) => self.options.node_cidr_mask_v4,
                    IpNet::V6(_) => self.options.node_cidr_mask_v6,
                };
                first_free(cluster, mask, &used)
            })
            .collect::<Option<_>>()?;
        given.insert(node.to_owned(), chosen.clone());
        Some(chosen)
    }
}

/// The first subnet of this size that overlaps with nothing in use.
fn first_free(cluster: &IpNet, mask: u8, used: &[IpNet]) -> Option<IpNet> {
    let overlaps = |one: &IpNet, other: &IpNet| one.contains(&other.network()) || other.contains(&one.network());
    let used: Vec<&IpNet> = used.iter().filter(|net| overlaps(cluster, net)).collect();
    let (start, bits) = match cluster.network() {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    if mask < cluster.prefix_len() || mask > bits {
        return None;
    }
    let step = 1_u128.checked_shl(u32::from(bits - mask))?;
    let count = 1_u128.checked_shl(u32::from(mask - cluster.prefix_len())).unwrap_or(u128::MAX);
    let mut nth = 0;
    while nth < count {
        let base = start + nth * step;
        let candidate = match cluster {
            IpNet::V4(_) => IpNet::V4(Ipv4Net::new(u32::try_from(base).ok()?.into(), mask).ok()?),
            IpNet::V6(_) => IpNet::V6(Ipv6Net::new(base.into(), mask).ok()?),
        };
        match used.iter().find(|net| overlaps(&candidate, net)) {
            None => return Some(candidate),
            // Jump behind what is in the way: it may be much larger than one step.
            Some(taken) => {
                let end = match taken.broadcast() {
                    IpAddr::V4(address) => u128::from(address.to_bits()),
                    IpAddr::V6(address) => address.to_bits(),
                };
                nth = ((end.saturating_sub(start)) / step).max(nth) + 1;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_given_in_order_and_never_overlap() {
        let cluster = net("10.42.0.0/16");
        let mut used = vec![net("10.42.0.0/24"), net("10.42.2.0/24"), net("10.43.0.0/16")];
        assert_eq!(first_free(&cluster, 24, &used), Some(net("10.42.1.0/24")));
        used.push(net("10.42.0.0/18"));
        assert_eq!(first_free(&cluster, 24, &used), Some(net("10.42.64.0/24")));
        used.push(net("10.0.0.0/8"));
        assert_eq!(first_free(&cluster, 24, &used), None);
        assert_eq!(first_free(&net("fd00::/56"), 64, &[net("fd00::/64")]), Some(net("fd00:0:0:1::/64")));
        assert_eq!(first_free(&cluster, 12, &[]), None, "a node cannot get more than there is");
        let full: Vec<IpNet> = (0..256).map(|nth| net(&format!("10.42.{nth}.0/24"))).collect();
        assert_eq!(first_free(&cluster, 24, &full), None);
        assert_eq!(first_free(&cluster, 24, &full[..255]), Some(net("10.42.255.0/24")));
    }
}
