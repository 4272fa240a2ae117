//! What the agent reads from and sets on its host: name, address, kernel settings.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
};

use crate::{
    Error,
    journal::{HostObject, Journal},
};

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
        nix::ifaddrs::getifaddrs().ok()?.find_map(|i| {
            let ip = i.address?.as_sockaddr_in()?.ip();
            (!ip.is_loopback() && !ip.is_link_local()).then_some(IpAddr::V4(ip))
        })
    };
    match route() {
        Ok(ip) if !ip.is_unspecified() && !ip.is_loopback() => Ok(ip),
        _ => first_link().ok_or_else(|| Error::Host("the host has no address with a default route: give --node-ip".into())),
    }
}

/// Settings without which packets do not flow between pods; each one's value before goes into the journal.
pub fn prepare_kernel(journal: &mut Journal) -> Result<(), Error> {
    set(journal, "net/ipv4/ip_forward", "1")?;
    // A reply from a pod on the same bridge must pass the rules that undo the service address.
    if Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        set(journal, "net/bridge/bridge-nf-call-iptables", "1")?;
    } else {
        tracing::warn!("the kernel has no bridge netfilter: a pod cannot reach a service whose endpoint is on the same node");
    }
    Ok(())
}

fn set(journal: &mut Journal, setting: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(setting);
    let failed = |e: std::io::Error| Error::Host(format!("{}: {e}", path.display()));
    let before = fs::read_to_string(&path).map_err(failed)?.trim().to_owned();
    if before == value {
        return Ok(());
    }
    journal.record(HostObject::Sysctl(setting.into(), before)).map_err(failed)?;
    fs::write(&path, value).map_err(failed)
}

/// Puts a setting back.
pub fn restore(setting: &str, value: &str) -> std::io::Result<()> {
    fs::write(Path::new("/proc/sys").join(setting), value)
}
