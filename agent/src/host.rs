//! What the agent reads from and sets on its host: name, address, kernel modules and settings.

pub mod kernel;
pub mod modules;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use nix::net::if_::InterfaceFlags;

use crate::error::Error;

/// The host's name in lower case, as kubelet names a node.
pub fn node_name() -> Result<String, Error> {
    let name = nix::unistd::gethostname().map_err(|e| Error::Host(format!("host name: {e}")))?;
    let name = name.to_string_lossy().trim().to_lowercase();
    if name.is_empty() { Err(Error::Host("the host has no name: give --node-name".into())) } else { Ok(name) }
}

/// The address that leads to the default route; no packet is sent.
pub fn node_ip() -> Result<IpAddr, Error> {
    let route = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Connecting a UDP socket asks the routing table only. The address is from the documentation range.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let first_link = || {
        // The loopback link may carry the address of cluster DNS.
        nix::ifaddrs::getifaddrs().ok()?.filter(|i| !i.flags.contains(InterfaceFlags::IFF_LOOPBACK)).find_map(|i| {
            let ip = i.address?.as_sockaddr_in()?.ip();
            (!ip.is_link_local()).then_some(IpAddr::V4(ip))
        })
    };
    match route() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_loopback() => Ok(ip),
        _ => first_link().ok_or_else(|| Error::Host("the host has no address with a default route: give --node-ip".into())),
    }
}
