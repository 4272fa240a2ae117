//! Joins the kubelet, which knows the pods' host ports, and the service proxy's crate, which maps them.

use std::net::{IpAddr, Ipv4Addr};

use futures::{FutureExt, future::BoxFuture};
use trireme_kubelet::{HostPortMapping, HostPortProtocol};
use trireme_proxy::{
    host_ports::{HostPorts, Mapping},
    services::Protocol,
};

/// The kubelet's side of the mappings.
pub(crate) struct MappedPorts(pub(crate) std::sync::Arc<HostPorts>);

impl trireme_kubelet::HostPorts for MappedPorts {
    fn set<'a>(&'a self, pod_uid: &'a str, pod_ips: &'a [IpAddr], mappings: &'a [HostPortMapping]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let address = pod_ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
            let address: Ipv4Addr = address.ok_or("the pod has no IPv4 address")?;
            let mappings = mappings.iter().map(mapping).collect::<Result<Vec<_>, String>>()?;
            self.0.set(pod_uid, address, &mappings).await
        }
        .boxed()
    }

    fn clear<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.0.clear(pod_uid).boxed()
    }
}

fn mapping(mapping: &HostPortMapping) -> Result<Mapping, String> {
    let host_ip = match mapping.host_ip {
        Some(IpAddr::V6(ip)) => return Err(format!("hostIP {ip}: only IPv4 addresses are mapped")),
        Some(IpAddr::V4(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
        None => None,
    };
    let protocol = match mapping.protocol {
        HostPortProtocol::Tcp => Protocol::Tcp,
        HostPortProtocol::Udp => Protocol::Udp,
        HostPortProtocol::Sctp => Protocol::Sctp,
    };
    Ok(Mapping { protocol, host_ip, host_port: mapping.host_port, container_port: mapping.container_port })
}
