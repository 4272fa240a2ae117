//! One node's share of the pod network: bridge, tunnel, routes, and a pod's coming and going.
//!
//! State on the host is only ever *ensured*: after a restart of the agent nothing is torn down first.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use trireme_client::Informer;

use crate::{
    Error,
    gate::{Gate, SandboxPod},
    ipam::AddressPool,
    netlink::{Netlink, PodLink, Vxlan},
    routes::{self, Peer},
};

/// The bridge that the node's pods hang on.
pub const BRIDGE: &str = "cni0";
/// The tunnel device of the VXLAN backend.
pub const TUNNEL: &str = "flannel.1";
/// After a failure to make what the node itself needs.
const RETRY: Duration = Duration::from_secs(1);
/// Links and addresses of this host may change without a Node object changing.
const TRY_UNREACHABLE_AGAIN: Duration = Duration::from_secs(10);
const VXLAN_PORT: u16 = 8472;
const VXLAN_OVERHEAD: u32 = 50;

/// How packets reach pods on other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Encapsulated: works over any network between the nodes.
    Vxlan,
    /// Plain routes: the nodes share a layer-2 network.
    HostGw,
}

/// What the pod network is told at start.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// This node's name.
    pub node_name: String,
    /// This node's address.
    pub node_ip: Ipv4Addr,
    /// The way to the other nodes.
    pub backend: Backend,
    /// Folder for the address reservations.
    pub folder: PathBuf,
    /// Whether the links of our names, if they exist, are known to be ours (the agent's journal says so).
    pub owns_links: bool,
}

/// The node's pod network. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    options: NetworkOptions,
    netlink: Netlink,
    ready: watch::Sender<Option<Arc<Ready>>>,
    gate: Option<Arc<dyn Gate>>,
}

/// What is known of the ways to the other nodes, by their names.
#[derive(Default)]
struct Routes {
    applied: BTreeMap<String, Peer>,
    /// Those to which the kernel takes no route.
    unreachable: BTreeMap<String, Peer>,
}

/// What exists once the node has its pod CIDR.
struct Ready {
    bridge: u32,
    out_link: u32,
    mtu: u32,
    pool: Mutex<AddressPool>,
}

impl Network {
    /// Connects to the kernel. Nothing is made yet: that waits for the node's pod CIDR. Pods pass `gate`, if there is one.
    pub async fn new(options: NetworkOptions, gate: Option<Arc<dyn Gate>>) -> Result<Self, Error> {
        let netlink = Netlink::connect()?;
        if !options.owns_links {
            for name in [BRIDGE, TUNNEL] {
                if netlink.link_index(name).await?.is_some() {
                    return Err(Error::ForeignLink(name.into()));
                }
            }
        }
        let (ready, _) = watch::channel(None);
        Ok(Self { inner: Arc::new(Inner { options, netlink, ready, gate }) })
    }

    /// Keeps bridge and routes in step with the Node objects until cancelled.
    pub async fn run(&self, nodes: Arc<Informer<Node>>, cancel: CancellationToken) {
        let (poke, mut poked) = tokio::sync::mpsc::channel(1);
        nodes.on_event(move |_| {
            let _ = poke.try_send(());
        });
        let mut routes = Routes::default();
        loop {
            let again = match self.sync(&nodes, &mut routes).await {
                Ok(()) if routes.unreachable.is_empty() => None,
                Ok(()) => Some(TRY_UNREACHABLE_AGAIN),
                Err(error) => {
                    tracing::warn!(%error, "pod network not in step, trying again");
                    Some(RETRY)
                }
            };
            tokio::select! {
                _ = poked.recv() => {}
                () = async { if let Some(wait) = again { tokio::time::sleep(wait).await } else { std::future::pending().await } } => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn sync(&self, nodes: &Informer<Node>, routes: &mut Routes) -> Result<(), Error> {
        let all = nodes.list();
        let this = all.iter().find(|n| n.metadata.name.as_deref() == Some(self.inner.options.node_name.as_str()));
        let Some(cidr) = this.and_then(|n| routes::pod_cidr(n)) else { return Ok(()) };
        let ready = self.set_up(cidr).await?;
        let wanted = routes::plan(all.iter().map(AsRef::as_ref), &self.inner.options.node_name);
        self.apply_routes(&ready, wanted, routes).await
    }

    async fn set_up(&self, cidr: Ipv4Net) -> Result<Arc<Ready>, Error> {
        if let Some(ready) = self.inner.ready.borrow().clone() {
            return Ok(ready);
        }
        let options = &self.inner.options;
        let netlink = &self.inner.netlink;
        let missing = || std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "no link has this address");
        let (underlay, underlay_mtu) =
            netlink.link_of_address(options.node_ip).await?.ok_or_else(|| Error::io(format!("node IP {}", options.node_ip))(missing()))?;
        let pool = AddressPool::open(cidr, options.folder.clone())?;
        let (out_link, mtu) = match options.backend {
            Backend::HostGw => (underlay, underlay_mtu),
            Backend::Vxlan => {
                let vxlan = Vxlan {
                    vni: 1,
                    underlay_index: underlay,
                    local: options.node_ip,
                    port: VXLAN_PORT,
                    mtu: underlay_mtu - VXLAN_OVERHEAD,
                    mac: routes::tunnel_mac(options.node_ip),
                    address: Ipv4Net::from(cidr.network()),
                };
                (netlink.ensure_vxlan(TUNNEL, &vxlan).await?, vxlan.mtu)
            }
        };
        let gateway = Ipv4Net::new(pool.gateway(), cidr.prefix_len()).map_err(|e| Error::BadRequest(e.to_string()))?;
        let bridge = netlink.ensure_bridge(BRIDGE, gateway, mtu).await?;
        let ready = Arc::new(Ready { bridge, out_link, mtu, pool: Mutex::new(pool) });
        self.inner.ready.send_replace(Some(ready.clone()));
        tracing::info!(%cidr, backend = ?options.backend, mtu, "pod network is up");
        Ok(ready)
    }

    /// A peer that cannot be routed to (with host-gw: one in another subnet) does not keep the others from being routed to.
    async fn apply_routes(&self, ready: &Ready, wanted: BTreeMap<String, Peer>, routes: &mut Routes) -> Result<(), Error> {
        let gone = |(name, peer): &(&String, &Peer)| wanted.get(*name) != Some(*peer);
        let gone: Vec<(String, Peer)> = routes.applied.iter().filter(gone).map(|(n, p)| (n.clone(), *p)).collect();
        for (name, peer) in gone {
            self.inner.netlink.delete_route(peer.pod_cidr, gateway_of(self.inner.options.backend, &peer), ready.out_link).await?;
            routes.applied.remove(&name);
        }
        routes.unreachable.retain(|name, peer| wanted.get(name) == Some(peer));
        for (name, peer) in wanted {
            if routes.applied.get(&name) == Some(&peer) {
                continue;
            }
            match self.apply_route(ready, &peer).await {
                Ok(()) => {
                    routes.unreachable.remove(&name);
                    routes.applied.insert(name, peer);
                }
                // Said once for each peer and address.
                Err(error) => {
                    if routes.unreachable.insert(name.clone(), peer) != Some(peer) {
                        tracing::warn!(node = name, address = %peer.node_ip, %error, "no route to the pods of a node, trying again; host-gw needs all nodes in one subnet, vxlan does not");
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply_route(&self, ready: &Ready, peer: &Peer) -> Result<(), Error> {
        let netlink = &self.inner.netlink;
        let backend = self.inner.options.backend;
        if backend == Backend::Vxlan {
            netlink.replace_tunnel_peer(ready.out_link, peer.tunnel_ip(), peer.tunnel_mac(), peer.node_ip).await?;
        }
        netlink.replace_route(peer.pod_cidr, gateway_of(backend, peer), ready.out_link, backend == Backend::Vxlan).await
    }

    /// Whether pods can be attached: the bridge stands and the node has its CIDR.
    pub fn is_ready(&self) -> bool {
        self.inner.ready.borrow().is_some()
    }

    /// Completes when pods can be attached.
    pub async fn wait_ready(&self) {
        // The sender lives as long as self: the wait ends only by becoming ready.
        drop(self.inner.ready.subscribe().wait_for(Option::is_some).await);
    }

    /// Gives the sandbox an address and a way out. Adding the same sandbox again gives the same address.
    pub async fn add(&self, container_id: &str, pod: Option<SandboxPod>, netns: &Path, interface: &str) -> Result<PodAddress, Error> {
        let ready = self.inner.ready.borrow().clone().ok_or(Error::NoPodCidr)?;
        let (address, cidr, gateway) = {
            let mut pool = ready.pool.lock().await;
            (pool.reserve(container_id)?, pool.cidr(), pool.gateway())
        };
        let link = PodLink {
            host_name: host_link_name(container_id),
            pod_name: interface.to_owned(),
            address,
            prefix_len: cidr.prefix_len(),
            gateway,
            mtu: ready.mtu,
        };
        let attached = match self.pass_gate(container_id, pod, address).await {
            Ok(()) => self.inner.netlink.attach_pod(ready.bridge, netns, &link).await,
            Err(error) => Err(error),
        };
        if let Err(error) = attached {
            self.remove(container_id).await?;
            return Err(error);
        }
        Ok(PodAddress { address: Ipv4Net::new(address, cidr.prefix_len()).unwrap_or_else(|_| address.into()), gateway })
    }

    async fn pass_gate(&self, container_id: &str, pod: Option<SandboxPod>, address: Ipv4Addr) -> Result<(), Error> {
        match (&self.inner.gate, pod) {
            (Some(gate), Some(pod)) => gate.attach(container_id, pod, address).await.map_err(Error::NotAdmitted),
            // A sandbox of no pod: no policy selects it.
            _ => Ok(()),
        }
    }

    /// Takes both back. Removing twice is no error.
    pub async fn remove(&self, container_id: &str) -> Result<(), Error> {
        self.inner.netlink.delete_link(&host_link_name(container_id)).await?;
        if let Some(gate) = &self.inner.gate {
            gate.detach(container_id);
        }
        let ready = self.inner.ready.borrow().clone();
        match ready {
            Some(ready) => ready.pool.lock().await.release(container_id),
            // While a node is cleaned up its network is never ready.
            None => AddressPool::release_in(&self.inner.options.folder, container_id),
        }
        Ok(())
    }
}

/// What a pod was given.
#[derive(Debug, Clone, Copy)]
pub struct PodAddress {
    /// Its address with the node's prefix length.
    pub address: Ipv4Net,
    /// Its default gateway.
    pub gateway: Ipv4Addr,
}

fn gateway_of(backend: Backend, peer: &Peer) -> Ipv4Addr {
    match backend {
        Backend::Vxlan => peer.tunnel_ip(),
        Backend::HostGw => peer.node_ip,
    }
}

/// Link names have at most 15 characters; ten of the sandbox's random id are unique on a node.
fn host_link_name(container_id: &str) -> String {
    let short: String = container_id.chars().filter(char::is_ascii_alphanumeric).take(10).collect();
    format!("veth{short}")
}
