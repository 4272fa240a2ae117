//! What each service port balances to on this node: a pure function of Services and EndpointSlices.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};
use trireme_client::{Index, Informer, ObjectKey};

use crate::topology::{Here, Reach};

/// Transport protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// Where a connection may end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
}

/// One port of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced {
    /// `namespace/name:port`, for comments and chain names.
    pub id: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the virtual addresses.
    pub port: u16,
    /// The cluster IP.
    pub cluster_ip: Ipv4Addr,
    /// Addresses outside of the cluster at which everybody is served.
    pub external_ips: Vec<Ipv4Addr>,
    /// Addresses of the load balancer, where only `source_ranges` may limit who is served.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// The clients of the load balancer's addresses; all if there is none.
    pub source_ranges: Option<Vec<Ipv4Net>>,
    /// Port on every node, if any.
    pub node_port: Option<u16>,
    /// Seconds a client keeps its endpoint, if affinity is on.
    pub affinity_secs: Option<u32>,
    /// Endpoints for traffic from inside.
    pub internal: Vec<Target>,
    /// Endpoints for traffic from outside.
    pub external: Vec<Target>,
    /// All endpoints, whatever the policies say of traffic.
    pub everywhere: Vec<Target>,
    /// Whether traffic from outside stays on this node and keeps its source address.
    pub external_local: bool,
}

/// A Service with this annotation is answered by every node itself, so it has no rules: cluster DNS, unless another DNS is deployed.
pub const ANSWERED_BY_NODES: &str = "trireme.io/answered-by-nodes";
/// Names the proxy that serves a Service in place of the cluster's.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// No proxy serves such a Service, although it has a cluster address.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Whether every node answers this Service itself.
pub fn is_answered_by_nodes(service: &Service) -> bool {
    service.metadata.annotations.as_ref().is_some_and(|a| a.get(ANSWERED_BY_NODES).is_some_and(|v| v == "true"))
}

/// Whether the Service asks for another proxy, or for none, as upstream's labels have it.
fn is_of_another_proxy(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    [PROXY_NAME_LABEL, HEADLESS_LABEL].iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label)))
}

/// What the health port of a Service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalHealth {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// How many of its ready endpoints are on this node.
    pub endpoints: usize,
}

/// The health port of a Service that keeps outside traffic on the node it comes to, and what the port says.
pub fn local_health(service: &Service, slices: &[Arc<EndpointSlice>], this_node: &str) -> Option<(u16, LocalHealth)> {
    let port = health_port(service)?;
    let endpoints = slices.iter().filter(|slice| is_ipv4(slice)).flat_map(|slice| slice.endpoints.iter().flatten());
    let ready: BTreeSet<&String> =
        endpoints.filter(|e| is_ready(e) && e.node_name.as_deref() == Some(this_node)).filter_map(|e| e.addresses.first()).collect();
    let ObjectKey { namespace, name } = ObjectKey::of(service);
    Some((port, LocalHealth { namespace, name, endpoints: ready.len() }))
}

/// The port at which a balancer asks for the endpoints of this node.
pub fn health_port(service: &Service) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local") && spec.type_.as_deref() == Some("LoadBalancer");
    spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| is_local && *p != 0)
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// The index of slices by Service, as [`ObjectKey`]'s text.
pub fn by_service(slices: &Arc<Informer<EndpointSlice>>) -> Index<EndpointSlice> {
    slices.index("service", |slice| service_of(slice).iter().map(ToString::to_string).collect())
}

fn is_ipv4(slice: &EndpointSlice) -> bool {
    slice.address_type == "IPv4"
}

/// The balanced ports of a Service with these slices. Headless, ExternalName and IPv6-only Services have none.
pub fn balanced_ports(service: &Service, slices: &[Arc<EndpointSlice>], here: &Here) -> Vec<Balanced> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let Some(cluster_ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") || is_answered_by_nodes(service) || is_of_another_proxy(service) {
        return Vec::new();
    }
    let key = ObjectKey::of(service);
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let affinity_secs = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| affinity_timeout(service));
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let endpoints = endpoints_of_port(slices, port);
            Some(Balanced {
                id: format!("{key}:{}", port.name.as_deref().unwrap_or_default()),
                protocol: protocol(port.protocol.as_deref())?,
                port: u16::try_from(port.port).ok()?,
                cluster_ip,
                external_ips: external_addresses(service),
                balancer_ips: balancer_addresses(service),
                source_ranges: source_ranges(spec),
                node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
                affinity_secs,
                internal: choose(&endpoints, internal_local, here),
                external: choose(&endpoints, external_local, here),
                everywhere: choose(&endpoints, false, here),
                external_local,
            })
        })
        .collect()
}

fn affinity_timeout(service: &Service) -> u32 {
    let config = service.spec.as_ref().and_then(|s| s.session_affinity_config.as_ref());
    let seconds = config.and_then(|c| c.client_ip.as_ref()).and_then(|c| c.timeout_seconds);
    seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
}

fn external_addresses(service: &Service) -> Vec<Ipv4Addr> {
    parsed(service.spec.iter().flat_map(|s| s.external_ips.iter().flatten()))
}

fn balancer_addresses(service: &Service) -> Vec<Ipv4Addr> {
    let balancer = service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|l| l.ingress.iter().flatten());
    parsed(balancer.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref()))
}

/// In order, each once.
fn parsed<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    let all: BTreeSet<Ipv4Addr> = texts.filter_map(|ip| ip.parse().ok()).collect();
    all.into_iter().collect()
}

/// The IPv4 ranges of `loadBalancerSourceRanges`. None if the field is empty: all clients are admitted. An empty list admits no IPv4 client.
fn source_ranges(spec: &ServiceSpec) -> Option<Vec<Ipv4Net>> {
    let ranges = spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty())?;
    Some(ranges.iter().filter_map(|range| range.trim().parse().ok()).collect())
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Endpoint ports are matched by name; the slice's port number is the target.
fn endpoints_of_port<'a>(slices: &'a [Arc<EndpointSlice>], port: &ServicePort) -> Vec<(Target, &'a Endpoint)> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| is_ipv4(slice)) {
        let same = |p: &&k8s_openapi::api::discovery::v1::EndpointPort| {
            p.name.as_deref().unwrap_or_default() == wanted && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
        };
        let Some(number) = slice.ports.iter().flatten().find(same).and_then(|p| u16::try_from(p.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
            found.push((Target { address, port: number }, endpoint));
        }
    }
    found
}

/// Ready endpoints, those of them that hints prefer; where there are none, those that still serve while they terminate. What may only go to
/// endpoints of this node heeds no hints.
fn choose(endpoints: &[(Target, &Endpoint)], local_only: bool, here: &Here) -> Vec<Target> {
    let may = |e: &Endpoint| !local_only || e.node_name.as_deref() == Some(here.node.as_str());
    let pick = |usable: &dyn Fn(&Endpoint) -> bool| -> BTreeSet<Target> {
        endpoints.iter().filter(|(_, e)| may(e) && usable(e)).map(|(t, _)| *t).collect()
    };
    let reach = match local_only {
        true => Reach::Everywhere,
        false => Reach::of(endpoints.iter().map(|(_, endpoint)| *endpoint).filter(|e| is_ready(e)), here),
    };
    let ready = pick(&|endpoint| is_ready(endpoint) && reach.includes(endpoint, here));
    let chosen = if ready.is_empty() { pick(&serves_while_terminating) } else { ready };
    chosen.into_iter().collect()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn serves_while_terminating(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let serving = conditions.and_then(|c| c.serving).unwrap_or(false);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    serving && terminating
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec})).unwrap()
    }

    pub(crate) fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let slice = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
        .unwrap();
        Arc::new(slice)
    }

    pub(crate) fn n1() -> Here {
        Here { node: "n1".into(), zone: Some("a".into()) }
    }

    #[test]
    fn hints_keep_traffic_near_where_that_is_possible() {
        let hinted = |node: &str, zone: &str, address: &str, hints: Value| json!({"addresses": [address], "nodeName": node, "zone": zone, "hints": hints});
        let zone = |zone: &str| json!({"forZones": [{"name": zone}]});
        let both = |node: &str, zone: &str| json!({"forZones": [{"name": zone}], "forNodes": [{"name": node}]});
        let near = json!([
            hinted("n1", "a", "10.42.0.2", zone("a")),
            hinted("n2", "a", "10.42.0.3", zone("a")),
            hinted("n3", "b", "10.42.0.4", zone("b"))
        ]);
        assert_eq!(targets(spec(), near.clone()), ["10.42.0.2:8080", "10.42.0.3:8080"]);
        let node = json!([hinted("n1", "a", "10.42.0.2", both("n1", "a")), hinted("n2", "a", "10.42.0.3", both("n2", "a"))]);
        assert_eq!(targets(spec(), node), ["10.42.0.2:8080"]);
        let elsewhere = json!([hinted("n2", "a", "10.42.0.3", both("n2", "a")), hinted("n3", "b", "10.42.0.4", both("n3", "b"))]);
        assert_eq!(targets(spec(), elsewhere), ["10.42.0.3:8080"], "none on this node: one of its zone");
        let mut missing = near.clone();
        missing[1]["hints"] = Value::Null;
        assert_eq!(targets(spec(), missing).len(), 3, "hints count where all have them");
        let mut gone = near;
        gone[0]["conditions"] = json!({"ready": false});
        gone[1]["conditions"] = json!({"ready": false});
        assert_eq!(targets(spec(), gone), ["10.42.0.4:8080"], "no ready one in the zone: all");
    }

    fn spec() -> Value {
        json!({"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]})
    }

    fn targets(spec: Value, endpoints: Value) -> Vec<String> {
        let (service, slice) = (service(spec), slice(endpoints));
        let all = balanced_ports(&service, &[slice], &n1());
        all.iter().flat_map(|b| b.internal.iter().map(|t| format!("{}:{}", t.address, t.port))).collect()
    }

    #[test]
    fn ready_endpoints_take_the_traffic_and_terminating_ones_only_when_alone() {
        let ready = json!({"addresses": ["10.42.0.2"], "conditions": {"ready": true}});
        let leaving = json!({"addresses": ["10.42.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let broken = json!({"addresses": ["10.42.0.4"], "conditions": {"ready": false, "serving": false, "terminating": false}});
        assert_eq!(targets(spec(), json!([ready, leaving, broken])), ["10.42.0.2:8080"]);
        assert_eq!(targets(spec(), json!([leaving, broken])), ["10.42.0.3:8080"]);
        assert!(targets(spec(), json!([broken])).is_empty());
    }

    #[test]
    fn internal_traffic_policy_local_keeps_to_this_node() {
        let mut local = spec();
        local["internalTrafficPolicy"] = json!("Local");
        let endpoints = json!([{"addresses": ["10.42.0.2"], "nodeName": "n1"}, {"addresses": ["10.42.1.2"], "nodeName": "n2"}]);
        assert_eq!(targets(local, endpoints), ["10.42.0.2:8080"]);
    }

    #[test]
    fn d07_only_a_service_that_nodes_answer_themselves_has_no_rules() {
        let mut service = service(spec());
        let count = |service: &Service| balanced_ports(service, &[], &n1()).len();
        assert_eq!(count(&service), 1);
        service.metadata.annotations = Some([(ANSWERED_BY_NODES.to_owned(), "true".to_owned())].into());
        assert_eq!(count(&service), 0);
    }

    #[test]
    fn a_service_of_another_proxy_has_no_rules() {
        let plain = service(spec());
        for label in ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"] {
            let mut other = plain.clone();
            other.metadata.labels = Some([(label.to_owned(), String::new())].into());
            assert!(balanced_ports(&other, &[], &n1()).is_empty(), "{label}");
        }
        assert_eq!(balanced_ports(&plain, &[], &n1()).len(), 1);
    }

    #[test]
    fn d12_a_health_port_counts_ready_endpoints_of_this_node() {
        let mut local = spec();
        local["type"] = json!("LoadBalancer");
        local["externalTrafficPolicy"] = json!("Local");
        local["healthCheckNodePort"] = json!(32000);
        let endpoints = json!([
            {"addresses": ["10.42.0.2"], "nodeName": "n1"},
            {"addresses": ["10.42.0.3"], "nodeName": "n1", "conditions": {"ready": false}},
            {"addresses": ["10.42.1.2"], "nodeName": "n2"},
        ]);
        let (local, slice) = (service(local), slice(endpoints));
        let health = local_health(&local, std::slice::from_ref(&slice), "n1");
        assert_eq!(health, Some((32000, LocalHealth { namespace: "default".into(), name: "web".into(), endpoints: 1 })));
        assert_eq!(local_health(&service(spec()), &[slice], "n1"), None);
    }

    #[test]
    fn headless_and_external_name_services_are_not_balanced() {
        assert!(targets(json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}), json!([])).is_empty());
        assert!(targets(json!({"type": "ExternalName", "externalName": "example.org"}), json!([])).is_empty());
    }
}
