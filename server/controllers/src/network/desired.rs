//! What one pod contributes to a Service's endpoints. No I/O.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trireme_client::Object;

use crate::pods;

/// The zone label of a node.
pub(super) fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned()
}

/// Whether two states of a pod make the same endpoint, so that nothing has to be done.
pub(super) fn same_endpoint(old: &Pod, new: &Pod) -> bool {
    old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && pods::is_ready(old) == pods::is_ready(new)
        && pods::is_terminating(old) == pods::is_terminating(new)
        && pods::is_terminal(old) == pods::is_terminal(new)
        && addresses(old) == addresses(new)
        && pods::node_name(old) == pods::node_name(new)
        && spec_name(old) == spec_name(new)
}

fn spec_name(pod: &Pod) -> (Option<&str>, Option<&str>) {
    let spec = pod.spec.as_ref();
    (spec.and_then(|spec| spec.hostname.as_deref()), spec.and_then(|spec| spec.subdomain.as_deref()))
}

/// The pod's addresses, first the primary one.
pub(super) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    if listed.is_empty() { status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect() } else { listed }
}

/// The pod's address of a family.
pub(super) fn address_of<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    addresses(pod).into_iter().find(|address| family_of(address) == Some(family))
}

fn family_of(address: &str) -> Option<&'static str> {
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

/// The families for which a Service has slices.
pub(super) fn families(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let listed = spec.ip_families.clone().unwrap_or_default();
    if !listed.is_empty() {
        return listed;
    }
    let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
    let family = address.and_then(family_of).unwrap_or("IPv4");
    vec![family.to_owned()]
}

/// A Service's ports as this pod offers them: a port that names a container port is looked up, and left out where the pod
/// has none of that name.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let declared = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<EndpointPort> = declared
        .filter_map(|declared| {
            Some(EndpointPort {
                name: Some(declared.name.clone().unwrap_or_default()),
                port: Some(target_port(declared, pod)?),
                protocol: Some(declared.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: declared.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort_by(|one, other| (&one.name, one.port).cmp(&(&other.name, other.port)));
    ports
}

fn target_port(declared: &ServicePort, pod: &Pod) -> Option<i32> {
    let protocol = declared.protocol.as_deref().unwrap_or("TCP");
    match &declared.target_port {
        None => Some(declared.port),
        Some(IntOrString::Int(0)) => Some(declared.port),
        Some(IntOrString::Int(port)) => Some(*port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
            spec.containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten())
                .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol)
                .map(|port| port.container_port)
        }
    }
}

/// The endpoint that a pod is, at this address.
pub(super) fn endpoint(service: &Service, pod: &Pod, address: &str, zone: Option<String>) -> Endpoint {
    let terminating = pods::is_terminating(pod);
    let serving = pods::is_ready(pod);
    let publish = publishes_not_ready(service);
    let ready = publish || (serving && !terminating);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname: hostname(service, pod),
        node_name: pods::node_name(pod).map(str::to_owned),
        target_ref: Some(target(pod)),
        hints: if ready { hints(service, zone.as_deref(), pods::node_name(pod)) } else { None },
        zone,
        ..Endpoint::default()
    }
}

/// For whom a ready endpoint is meant, as the Service's `trafficDistribution` has it; none: for everybody. Answers to
/// <https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution>.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let is_by_node = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.filter(|_| is_by_node).map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// Whether a Service wants its pods found before they are ready.
pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The name under which a pod of a headless Service is found.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    (subdomain == service.name()).then(|| spec.hostname.clone()).flatten().filter(|name| !name.is_empty())
}

/// A reference to a pod.
pub(super) fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
