//! Which addresses a Service of type LoadBalancer gets: a pure function of Services, nodes and endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use trireme_client::{Object, ObjectKey};

use crate::network::labels;

/// Nodes with this label take no traffic of load balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What is to become of `status.loadBalancer`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Another controller's.
    NotOurs,
    /// None: reason and message of an event.
    Refused(&'static str, String),
    /// These addresses; none if the Service is of another type, or no node can take its traffic.
    Addresses(Vec<String>),
}

/// Protocol and port, as far as they are taken at every node's address.
pub(super) type Port = (String, i32);

/// Whether nodes are to answer for it, until it is gone.
pub(super) fn is_balanced(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let is_type = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
    is_type && spec.and_then(|spec| spec.load_balancer_class.as_ref()).is_none()
}

/// Whether only nodes with endpoints take its traffic.
pub(super) fn is_local(service: &Service) -> bool {
    is_balanced(service) && service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

/// The ports that it wants at every node's address.
pub(super) fn ports(service: &Service) -> BTreeSet<Port> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    all.filter(|_| is_balanced(service)).map(|port| (protocol(port), port.port)).collect()
}

/// Its node ports.
pub(super) fn node_ports(service: &Service) -> BTreeSet<Port> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    all.filter_map(|port| Some((protocol(port), port.node_port?))).collect()
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())
}

/// The addresses that it shows.
pub(super) fn shown(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten()).filter_map(|ingress| ingress.ip.clone()).collect()
}

/// The address at which a node takes traffic from outside; none while it cannot.
pub(super) fn address(node: &Node) -> Option<&str> {
    let status = node.status.as_ref()?;
    let is_ready = status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let is_excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED));
    if !is_ready || is_excluded || node.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let of_type = |type_: &str| status.addresses.iter().flatten().find(|address| address.type_ == type_);
    of_type("ExternalIP").or_else(|| of_type("InternalIP")).map(|address| address.address.as_str())
}

/// What a Service gets.
pub(super) fn plan(
    service: &Service,
    services: &[Arc<Service>],
    nodes: &[Arc<Node>],
    slices: &[Arc<EndpointSlice>],
    reserved: &[u16],
) -> Plan {
    if !is_balanced(service) {
        let has_class = service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_some());
        // A Service that is no longer of the type keeps no addresses.
        return if has_class || shown(service).is_empty() { Plan::NotOurs } else { Plan::Addresses(Vec::new()) };
    }
    let wanted = ports(service);
    if let Some((protocol, port)) = wanted.iter().find(|(_, port)| reserved.iter().any(|reserved| i32::from(*reserved) == *port)) {
        return Plan::Refused(
            "PortReserved",
            format!("port {port}/{protocol} of the nodes belongs to the cluster or its hosts: choose another port"),
        );
    }
    for other in services.iter().filter(|other| other.uid() != service.uid() && age(other) < age(service)) {
        if let Some((protocol, port)) = ports(other).intersection(&wanted).next() {
            let (namespace, name) = (other.namespace(), other.name());
            return Plan::Refused(
                "PortInUse",
                format!("port {port}/{protocol} of the nodes belongs to the older Service {namespace}/{name}"),
            );
        }
    }
    for other in services.iter().filter(|other| other.uid() != service.uid()) {
        if let Some((protocol, port)) = node_ports(other).intersection(&wanted).next() {
            let (namespace, name) = (other.namespace(), other.name());
            return Plan::Refused(
                "PortInUse",
                format!("port {port}/{protocol} of the nodes is the node port of Service {namespace}/{name}"),
            );
        }
    }
    let local = is_local(service).then(|| nodes_with_endpoints(service, slices));
    let takes = |node: &&Arc<Node>| local.as_ref().is_none_or(|local| local.contains(node.name()));
    let addresses: BTreeSet<&str> = nodes.iter().filter(takes).filter_map(|node| address(node)).collect();
    Plan::Addresses(addresses.into_iter().map(str::to_owned).collect())
}

/// Older is less. Times are whole seconds: of two that are equal, the one that has addresses was there before.
fn age(service: &Service) -> (Option<jiff::Timestamp>, bool, &str) {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let has_addresses = balancer.and_then(|balancer| balancer.ingress.as_ref()).is_some_and(|ingress| !ingress.is_empty());
    (service.metadata.creation_timestamp.as_ref().map(|time| time.0), !has_addresses, service.uid())
}

fn nodes_with_endpoints(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let own = ObjectKey::of(service);
    let mut nodes = BTreeSet::new();
    for slice in slices.iter().filter(|slice| labels::service_of(slice).as_ref() == Some(&own)) {
        let ready = slice.endpoints.iter().flatten().filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        nodes.extend(ready.filter_map(|endpoint| endpoint.node_name.clone()));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, created: &str, spec: Value) -> Arc<Service> {
        let mut spec = spec;
        spec["type"] = spec.get("type").cloned().unwrap_or(json!("LoadBalancer"));
        let metadata = json!({"namespace": "a", "name": name, "uid": name, "creationTimestamp": created});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn node(name: &str, address: Value, ready: &str, labels: Value) -> Arc<Node> {
        let status = json!({"addresses": address, "conditions": [{"type": "Ready", "status": ready}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap())
    }

    fn nodes() -> Vec<Arc<Node>> {
        let internal = |ip: &str| json!([{"type": "InternalIP", "address": ip}]);
        vec![
            node("n1", internal("192.0.2.11"), "True", json!({})),
            node(
                "n2",
                json!([{"type": "InternalIP", "address": "10.0.0.2"}, {"type": "ExternalIP", "address": "198.51.100.2"}]),
                "True",
                json!({}),
            ),
            node("n3", internal("192.0.2.13"), "Unknown", json!({})),
            node("n4", internal("192.0.2.14"), "True", json!({EXCLUDED: ""})),
        ]
    }

    fn outcome(of: &Arc<Service>, all: &[&Arc<Service>]) -> Result<Vec<String>, String> {
        let all: Vec<Arc<Service>> = all.iter().map(|service| Arc::clone(service)).collect();
        let slice = json!({
            "metadata": {"namespace": "a", "name": "s", "labels": {"kubernetes.io/service-name": "local"}}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.42.0.2"], "nodeName": "n1"},
                {"addresses": ["10.42.1.2"], "nodeName": "n2", "conditions": {"ready": false}},
            ],
        });
        match plan(of, &all, &nodes(), &[Arc::new(serde_json::from_value(slice).unwrap())], &[22, 6443, 8472]) {
            Plan::Addresses(addresses) => Ok(addresses),
            Plan::Refused(reason, message) => Err(format!("{reason}: {message}")),
            Plan::NotOurs => Err("not ours".to_owned()),
        }
    }

    const OLD: &str = "2026-01-01T00:00:00Z";
    const NEW: &str = "2026-01-01T00:00:01Z";

    #[test]
    fn every_ready_node_answers_at_its_external_address_or_else_at_its_own() {
        let web = service("web", OLD, json!({"ports": [{"port": 80}]}));
        assert_eq!(outcome(&web, &[&web]), Ok(vec!["192.0.2.11".to_owned(), "198.51.100.2".to_owned()]));
        let local = service("local", OLD, json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local"}));
        assert_eq!(outcome(&local, &[&local]), Ok(vec!["192.0.2.11".to_owned()]), "only where a ready endpoint is");
    }

    #[test]
    fn a_port_belongs_to_the_oldest_and_none_to_a_port_of_the_cluster() {
        let (old, new) =
            (service("old", OLD, json!({"ports": [{"port": 80}]})), service("new", NEW, json!({"ports": [{"port": 443}, {"port": 80}]})));
        assert!(outcome(&old, &[&new, &old]).is_ok());
        assert_eq!(outcome(&new, &[&new, &old]).unwrap_err(), "PortInUse: port 80/TCP of the nodes belongs to the older Service a/old");
        let udp = service("udp", NEW, json!({"ports": [{"port": 80, "protocol": "UDP"}]}));
        assert!(outcome(&udp, &[&udp, &old]).is_ok(), "another protocol is another port");
        let mut holder = Arc::unwrap_or_clone(service("z-holder", OLD, json!({"ports": [{"port": 80}]})));
        holder.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})).unwrap();
        let (holder, late) = (Arc::new(holder), service("late", OLD, json!({"ports": [{"port": 80}]})));
        assert!(outcome(&holder, &[&late, &holder]).is_ok(), "of the same second, but it has its addresses");
        assert!(outcome(&late, &[&late, &holder]).unwrap_err().contains("a/z-holder"));
        let own = service("own", OLD, json!({"ports": [{"port": 30080, "nodePort": 30080}]}));
        assert!(outcome(&own, &[&own]).is_ok());
        let mut going = Arc::unwrap_or_clone(service("going", OLD, json!({"ports": [{"port": 80}]})));
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert!(outcome(&new, &[&new, &Arc::new(going)]).is_err(), "it still answers while it waits for a finalizer");
        let tunnel = service("tunnel", OLD, json!({"ports": [{"port": 8472, "protocol": "UDP"}]}));
        assert!(outcome(&tunnel, &[&tunnel]).unwrap_err().starts_with("PortReserved"));
        let api = service("api", OLD, json!({"ports": [{"port": 6443}]}));
        assert!(outcome(&api, &[&api]).unwrap_err().starts_with("PortReserved"));
        let node_port = service("np", NEW, json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30080}]}));
        let wants = service("wants", OLD, json!({"ports": [{"port": 30080}]}));
        assert!(outcome(&wants, &[&wants, &node_port]).unwrap_err().contains("node port of Service a/np"));
    }

    #[test]
    fn what_is_of_another_class_or_type_is_left_alone() {
        let mut other = service("o", OLD, json!({"ports": [{"port": 80}], "loadBalancerClass": "example.com/x"}));
        assert_eq!(outcome(&other, &[&other]).unwrap_err(), "not ours");
        other = service("o", OLD, json!({"type": "ClusterIP", "ports": [{"port": 80}]}));
        assert_eq!(outcome(&other, &[&other]).unwrap_err(), "not ours");
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.11"}]}});
        Arc::make_mut(&mut other).status = serde_json::from_value(status).unwrap();
        assert_eq!(outcome(&other, &[&other]), Ok(Vec::new()), "what was of the type keeps no address");
    }
}
