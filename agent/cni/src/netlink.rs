//! The kernel's links, addresses, routes and neighbours: the only file that speaks netlink.
//!
//! Every `ensure_*` is idempotent: what is already there in the right form is left alone, so that an agent's restart
//! does not disturb traffic.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkMessage},
        route::{RouteMessage, RouteScope},
    },
};

use crate::{Error, routes::bridge_mac};

/// `RT_TABLE_DEFAULT`: looked at after `main`, and empty on almost every host.
const LAST_TABLE: u32 = 253;

/// A netlink connection to one network namespace.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

/// What a veth pair for a pod is made from.
#[derive(Debug, Clone)]
pub struct PodLink {
    /// Name on the node.
    pub host_name: String,
    /// Name inside the pod.
    pub pod_name: String,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Prefix length of the node's pod CIDR.
    pub prefix_len: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// MTU of both ends.
    pub mtu: u32,
}

impl Netlink {
    /// Connects to the namespace of the calling thread; must be called on a tokio runtime.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::io("open netlink socket"))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    async fn link(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        match self.handle.link().get().match_name(name).execute().try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -nix::libc::ENODEV => Ok(None),
            Err(e) => Err(Error::netlink(format!("look up link {name}"))(e)),
        }
    }

    /// The index of a link, if it exists.
    pub async fn link_index(&self, name: &str) -> Result<Option<u32>, Error> {
        Ok(self.link(name).await?.map(|l| l.header.index))
    }

    /// Index and MTU of the link that carries `address`.
    pub async fn link_of_address(&self, address: Ipv4Addr) -> Result<Option<(u32, u32)>, Error> {
        let mut addresses = self.handle.address().get().set_address_filter(IpAddr::V4(address)).execute();
        let mut index = None;
        while let Some(found) = addresses.try_next().await.map_err(Error::netlink("list addresses"))? {
            if found.attributes.iter().any(|a| matches!(a, AddressAttribute::Address(ip) if *ip == IpAddr::V4(address))) {
                index = Some(found.header.index);
            }
        }
        let Some(index) = index else { return Ok(None) };
        let link = self.handle.link().get().match_index(index).execute().try_next().await;
        let link = link.map_err(Error::netlink(format!("look up link {index}")))?;
        let mtu = link.iter().flat_map(|l| &l.attributes).find_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None });
        Ok(Some((index, mtu.unwrap_or(1500))))
    }

    /// A bridge that is up, has `address` and the MTU; its index.
    ///
    /// Its MAC is fixed. Otherwise it is the least of its ports', and when a pod comes or goes, what the other pods send to the node is lost
    /// until they ask for its MAC again: half a minute and more.
    pub async fn ensure_bridge(&self, name: &str, address: Ipv4Net, mtu: u32) -> Result<u32, Error> {
        let mac = bridge_mac(address.addr()).to_vec();
        let (index, mac) = match self.link_index(name).await? {
            // Pods that hang on it know the one that it has.
            Some(index) => (index, self.mac(name).await?.filter(|mac| mac.iter().any(|byte| *byte != 0)).unwrap_or(mac)),
            None => {
                let bridge = LinkBridge::new(name).mtu(mtu).build();
                self.handle.link().add(bridge).execute().await.map_err(Error::netlink(format!("add bridge {name}")))?;
                (self.required_index(name).await?, mac)
            }
        };
        let fixed = LinkUnspec::new_with_index(index).address(mac).build();
        self.handle.link().set(fixed).execute().await.map_err(Error::netlink(format!("set the MAC of {name}")))?;
        self.ensure_address(index, name, address).await?;
        self.up(index, name).await?;
        Ok(index)
    }

    /// The tunnel device, made anew if `recreate` (its parameters cannot be changed in place); its index.
    pub async fn ensure_vxlan(&self, name: &str, vxlan: &Vxlan) -> Result<u32, Error> {
        if let Some(index) = self.link_index(name).await? {
            if self.mac(name).await?.as_deref() == Some(&vxlan.mac[..]) {
                self.ensure_address(index, name, vxlan.address).await?;
                self.up(index, name).await?;
                return Ok(index);
            }
            self.delete_link(name).await?;
        }
        let link = LinkVxlan::new(name, vxlan.vni)
            .dev(vxlan.underlay_index)
            .local(vxlan.local)
            .port(vxlan.port)
            .learning(false)
            .mtu(vxlan.mtu)
            .address(vxlan.mac.to_vec())
            .build();
        self.handle.link().add(link).execute().await.map_err(Error::netlink(format!("add vxlan {name}")))?;
        let index = self.required_index(name).await?;
        self.ensure_address(index, name, vxlan.address).await?;
        self.up(index, name).await?;
        Ok(index)
    }

    async fn mac(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let link = self.link(name).await?;
        Ok(link.and_then(|l| l.attributes.into_iter().find_map(|a| if let LinkAttribute::Address(mac) = a { Some(mac) } else { None })))
    }

    async fn required_index(&self, name: &str) -> Result<u32, Error> {
        let gone = || std::io::Error::new(std::io::ErrorKind::NotFound, "link vanished");
        self.link_index(name).await?.ok_or_else(|| Error::io(format!("look up link {name}"))(gone()))
    }

    async fn up(&self, index: u32, name: &str) -> Result<(), Error> {
        let link = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(link).execute().await.map_err(Error::netlink(format!("set {name} up")))
    }

    /// Sets the loopback link up.
    pub async fn loopback_up(&self) -> Result<(), Error> {
        let index = self.required_index("lo").await?;
        self.up(index, "lo").await
    }

    /// An address on a link.
    pub async fn ensure_address(&self, index: u32, name: &str, address: Ipv4Net) -> Result<(), Error> {
        let request = self.handle.address().add(index, IpAddr::V4(address.addr()), address.prefix_len());
        request.replace().execute().await.map_err(Error::netlink(format!("add {address} to {name}")))
    }

    /// Whether a link has an address.
    pub async fn has_address(&self, name: &str, address: Ipv4Net) -> Result<bool, Error> {
        Ok(self.find_address(name, address).await?.is_some())
    }

    /// Adds an address to a link that is there.
    pub async fn add_address(&self, name: &str, address: Ipv4Net) -> Result<(), Error> {
        let index = self.required_index(name).await?;
        self.ensure_address(index, name, address).await
    }

    /// Removes an address from a link; a missing one is no error.
    pub async fn delete_address(&self, name: &str, address: Ipv4Net) -> Result<(), Error> {
        let Some(found) = self.find_address(name, address).await? else { return Ok(()) };
        match self.handle.address().del(found).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -nix::libc::EADDRNOTAVAIL => Ok(()),
            other => other.map_err(Error::netlink(format!("delete {address} from {name}"))),
        }
    }

    async fn find_address(&self, name: &str, address: Ipv4Net) -> Result<Option<AddressMessage>, Error> {
        let Some(index) = self.link_index(name).await? else { return Ok(None) };
        let mut addresses = self.handle.address().get().set_link_index_filter(index).execute();
        while let Some(found) = addresses.try_next().await.map_err(Error::netlink(format!("list addresses of {name}")))? {
            let is_it = |a: &AddressAttribute| matches!(a, AddressAttribute::Address(ip) if *ip == IpAddr::V4(address.addr()));
            if found.header.prefix_len == address.prefix_len() && found.attributes.iter().any(is_it) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A route to `destination` that counts only where no other route leads there, not even a default route: it is in the table that
    /// the kernel looks at last. Packets get `source`, and must be rewritten before they leave.
    pub async fn ensure_fallback_route(&self, destination: Ipv4Net, source: Ipv4Addr) -> Result<(), Error> {
        let loopback = self.required_index("lo").await?;
        let route = fallback_route(destination, loopback, Some(source));
        self.handle.route().add(route).replace().execute().await.map_err(Error::netlink(format!("fallback route {destination}")))
    }

    /// Removes that route; a missing one is no error.
    pub async fn delete_fallback_route(&self, destination: Ipv4Net) -> Result<(), Error> {
        let loopback = self.required_index("lo").await?;
        match self.handle.route().del(fallback_route(destination, loopback, None)).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -nix::libc::ESRCH => Ok(()),
            other => other.map_err(Error::netlink(format!("delete fallback route {destination}"))),
        }
    }

    /// Removes a link; a missing one is no error.
    pub async fn delete_link(&self, name: &str) -> Result<(), Error> {
        let Some(index) = self.link_index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -nix::libc::ENODEV => Ok(()),
            other => other.map_err(Error::netlink(format!("delete link {name}"))),
        }
    }

    /// `destination` through `gateway` on a link (`onlink`: the gateway need not be in any connected network).
    pub async fn replace_route(&self, destination: Ipv4Net, gateway: Ipv4Addr, link: u32, onlink: bool) -> Result<(), Error> {
        let route = route_via(destination, gateway, link, onlink);
        self.handle.route().add(route).replace().execute().await.map_err(Error::netlink(format!("route {destination} via {gateway}")))
    }

    /// Removes such a route; a missing one is no error.
    pub async fn delete_route(&self, destination: Ipv4Net, gateway: Ipv4Addr, link: u32) -> Result<(), Error> {
        match self.handle.route().del(route_via(destination, gateway, link, false)).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -nix::libc::ESRCH => Ok(()),
            other => other.map_err(Error::netlink(format!("delete route {destination} via {gateway}"))),
        }
    }

    /// A permanent ARP entry and the forwarding entry that says behind which node the MAC is.
    pub async fn replace_tunnel_peer(&self, link: u32, tunnel_ip: Ipv4Addr, mac: [u8; 6], node_ip: Ipv4Addr) -> Result<(), Error> {
        let arp = self.handle.neighbours().add(link, IpAddr::V4(tunnel_ip)).link_layer_address(&mac).replace();
        arp.execute().await.map_err(Error::netlink(format!("neighbour {tunnel_ip}")))?;
        let mut fdb = self.handle.neighbours().add_bridge(link, &mac).destination(IpAddr::V4(node_ip)).replace();
        fdb.message_mut().header.flags = rtnetlink::packet_route::neighbour::NeighbourFlags::Own;
        fdb.execute().await.map_err(Error::netlink(format!("forwarding entry for {node_ip}")))
    }

    /// Makes the pod's end of the network: a veth pair, one end on `bridge`, the other, configured, in the namespace.
    pub async fn attach_pod(&self, bridge: u32, netns: &Path, link: &PodLink) -> Result<(), Error> {
        let namespace = File::open(netns).map_err(Error::io(format!("open {}", netns.display())))?;
        self.delete_link(&link.host_name).await?;
        let peer = format!("p{}", link.host_name);
        let pair = LinkVeth::new(&link.host_name, &peer).mtu(link.mtu).build();
        self.handle.link().add(pair).execute().await.map_err(Error::netlink(format!("add veth {}", link.host_name)))?;
        let host_index = self.required_index(&link.host_name).await?;
        let peer_index = self.required_index(&peer).await?;
        let host = LinkUnspec::new_with_index(host_index).controller(bridge).up().build();
        self.handle.link().set(host).execute().await.map_err(Error::netlink(format!("attach {} to the bridge", link.host_name)))?;
        let port = LinkBridgePort::new(host_index).hairpin(true).build();
        self.handle.link().set_port(port).execute().await.map_err(Error::netlink(format!("hairpin on {}", link.host_name)))?;
        let moved = LinkUnspec::new_with_index(peer_index).mtu(link.mtu).setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&namespace)).build();
        self.handle.link().set(moved).execute().await.map_err(Error::netlink(format!("move {peer} into the pod")))?;
        let inside = link.clone();
        in_namespace(netns, move |netlink| async move { netlink.configure_inside(&peer, &inside).await }).await
    }

    async fn configure_inside(&self, peer: &str, link: &PodLink) -> Result<(), Error> {
        let index = self.required_index(peer).await?;
        let mac = bridge_mac(link.address).to_vec();
        let renamed = LinkUnspec::new_with_index(index).name(link.pod_name.clone()).address(mac).build();
        self.handle.link().set(renamed).execute().await.map_err(Error::netlink(format!("rename {peer}")))?;
        let net = Ipv4Net::new(link.address, link.prefix_len).map_err(|e| Error::BadRequest(e.to_string()))?;
        self.ensure_address(index, &link.pod_name, net).await?;
        no_ipv6(&link.pod_name)?;
        self.up(index, &link.pod_name).await?;
        self.loopback_up().await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(link.gateway).output_interface(index).build();
        self.handle.route().add(default).replace().execute().await.map_err(Error::netlink("default route of the pod"))
    }
}

/// Keeps a link of the current namespace without IPv6. The pod network is IPv4: the kernel's link-local addresses would be a way between
/// the pods of a node that no policy sees.
fn no_ipv6(link: &str) -> Result<(), Error> {
    let setting = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    match std::fs::write(&setting, "1") {
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::io(format!("write {setting}"))),
    }
}

/// Parameters of a tunnel device.
#[derive(Debug, Clone)]
pub struct Vxlan {
    /// Virtual network id.
    pub vni: u32,
    /// The link below.
    pub underlay_index: u32,
    /// This node's address on it.
    pub local: Ipv4Addr,
    /// UDP port.
    pub port: u16,
    /// MTU of the tunnel.
    pub mtu: u32,
    /// MAC of the tunnel device.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Net,
}

fn route_via(destination: Ipv4Net, gateway: Ipv4Addr, link: u32, onlink: bool) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .gateway(gateway)
        .output_interface(link)
        .scope(RouteScope::Universe);
    if onlink { route.onlink().build() } else { route.build() }
}

fn fallback_route(destination: Ipv4Net, link: u32, source: Option<Ipv4Addr>) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination.network(), destination.prefix_len())
        .output_interface(link)
        .table_id(LAST_TABLE)
        .scope(RouteScope::Link);
    match source {
        Some(ip) => route.pref_source(ip).build(),
        None => route.build(),
    }
}

/// Runs `work` with a netlink connection to the namespace at `path`, on a thread of its own: a namespace belongs to a thread.
pub async fn in_namespace<F, Fut>(path: &Path, work: F) -> Result<(), Error>
where
    F: FnOnce(Netlink) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), Error>>,
{
    let path = path.to_owned();
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || drop(done.send(run_in_namespace(&path, work))))
        .map_err(Error::io("start a thread"))?;
    let died = || std::io::Error::other("namespace thread died");
    result.await.unwrap_or_else(|_| Err(Error::io("configure pod")(died())))
}

fn run_in_namespace<F, Fut>(path: &Path, work: F) -> Result<(), Error>
where
    F: FnOnce(Netlink) -> Fut,
    Fut: Future<Output = Result<(), Error>>,
{
    let namespace = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| Error::io(format!("enter {}", path.display()))(e.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("start a runtime"))?;
    runtime.block_on(async { work(Netlink::connect()?).await })
}
