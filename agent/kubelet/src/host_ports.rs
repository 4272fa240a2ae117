//! The seam to the part of the node that maps ports of this host to pods.
//!
//! The kubelet knows which pods want host ports, which address each pod got, and when a pod ends; how packets reach the pod is the
//! business of the node's network. Must not program packet filters. Answers to `hostPort` and `hostIP` of
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#ports>.

use std::net::IpAddr;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::spec;

/// Transport protocol of a mapped port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPortProtocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// One port of this host that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPortMapping {
    /// The protocol on both sides.
    pub protocol: HostPortProtocol,
    /// The address of this host on which the port is taken; all of them if none is given.
    pub host_ip: Option<IpAddr>,
    /// The port on this host.
    pub host_port: u16,
    /// The port inside the pod.
    pub container_port: u16,
}

/// Maps ports of this host to pods.
///
/// The kubelet calls [`HostPorts::set`] after a pod's sandbox has its addresses and before the first container starts, again for the
/// same pod after a restart of the agent or with a new sandbox, and [`HostPorts::clear`] before the sandbox is stopped. Both are
/// awaited. An error is shown as an event of the pod, in the words of the error, and the call is repeated.
pub trait HostPorts: Send + Sync {
    /// Makes the pod's mappings exactly these. Idempotent: replaces what was set for the same UID.
    fn set<'a>(&'a self, pod_uid: &'a str, pod_ips: &'a [IpAddr], mappings: &'a [HostPortMapping]) -> BoxFuture<'a, Result<(), String>>;

    /// Removes all mappings of a pod. Idempotent; a pod that has none is no error.
    fn clear<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Maps nothing: a pod that asks for a host port gets an error.
pub(crate) struct NoHostPorts;

impl HostPorts for NoHostPorts {
    fn set<'a>(&'a self, _: &'a str, _: &'a [IpAddr], mappings: &'a [HostPortMapping]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { if mappings.is_empty() { Ok(()) } else { Err("this node's network does not map host ports".into()) } })
    }

    fn clear<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// The mappings that a pod asks for. None for a pod on the host's own network: its processes take the ports themselves.
pub(crate) fn of(pod: &Pod) -> Vec<HostPortMapping> {
    if spec::is_host_network(pod) {
        return Vec::new();
    }
    let ports = spec::all_containers(pod).flat_map(|(_, c)| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => HostPortProtocol::Udp,
                    Some("SCTP") => HostPortProtocol::Sctp,
                    _ => HostPortProtocol::Tcp,
                },
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified()),
                host_port: port.host_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn d04_a_host_port_that_nobody_maps_is_refused_in_words() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "a", "ports": [
            {"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "0.0.0.0"},
            {"containerPort": 81}]}]}}))
        .unwrap();
        let mappings = of(&pod);
        let tcp =
            HostPortMapping { protocol: HostPortProtocol::Tcp, host_ip: Some([127, 0, 0, 1].into()), host_port: 8080, container_port: 80 };
        assert_eq!(mappings, [tcp, HostPortMapping { protocol: HostPortProtocol::Udp, host_ip: None, host_port: 53, container_port: 53 }]);
        assert!(NoHostPorts.set("u", &[], &mappings).await.unwrap_err().contains("does not map host ports"));
        assert_eq!(NoHostPorts.set("u", &[], &[]).await, Ok(()));
    }
}
