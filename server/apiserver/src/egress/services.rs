//! Services as the server itself resolves them: it may be no node, and then its packets reach no ClusterIP.

use std::net::IpAddr;

use rand::seq::IndexedRandom;
use serde_json::Value;
use trireme_api::meta;

use super::{Place, is_global_unicast};
use crate::storage::lookup::ObjectReader;

/// One ready address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The pod that it is said to be, or empty.
    pub pod: String,
    /// The namespace of that pod.
    pub pod_namespace: String,
    /// The node on which it is said to be, or empty.
    pub node: String,
}

/// The name of the Service's port of this number.
pub fn port_name(service: &Value, number: u16) -> Option<String> {
    let ports = meta::list_at(service, &["spec", "ports"]);
    let port = ports.iter().find(|port| port["port"].as_i64() == Some(i64::from(number)))?;
    Some(port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// What to connect to for a Service's port: host, port and place of one of its endpoints, or of its external name.
///
/// # Errors
/// Why there is none.
pub fn resolve(reader: &dyn ObjectReader, namespace: &str, name: &str, port: u16) -> Result<(String, u16, Place), String> {
    let service = reader.get("", "services", namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
    if meta::str_at(&service.object, &["spec", "type"]) == "ExternalName" {
        return Ok((meta::str_at(&service.object, &["spec", "externalName"]).to_owned(), port, Place::Elsewhere));
    }
    let port_name = port_name(&service.object, port).ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let addresses = endpoints(reader, namespace, name, &port_name);
    let chosen = addresses.choose(&mut rand::rng()).ok_or_else(|| format!("no endpoints available for service {name:?}"))?;
    let place = if chosen.node.is_empty() { Place::Elsewhere } else { Place::Pod(chosen.node.clone()) };
    Ok((chosen.address.to_string(), chosen.port, place))
}

/// The ready endpoints of a Service's port. Addresses of this host, or that only its network reaches, are skipped: a user who may write
/// endpoints must not direct the server to itself.
pub fn endpoints(reader: &dyn ObjectReader, namespace: &str, service: &str, port_name: &str) -> Vec<Address> {
    let slices = reader.list("discovery.k8s.io", "endpointslices", Some(namespace));
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| meta::label(&slice.object, "kubernetes.io/service-name") == Some(service)) {
        let ports = meta::list_at(&slice.object, &["ports"]);
        let port = ports.iter().find(|port| port.get("name").and_then(Value::as_str).unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port.get("port")?.as_u64()?).ok()) else { continue };
        for endpoint in meta::list_at(&slice.object, &["endpoints"]) {
            let ready = meta::get(endpoint, &["conditions", "ready"]) != Some(&Value::Bool(false));
            let address = meta::list_at(endpoint, &["addresses"]).first().and_then(Value::as_str).and_then(|text| text.parse().ok());
            let address = address.filter(|address: &IpAddr| is_global_unicast(*address));
            if let (true, Some(address)) = (ready, address) {
                let target = |field: &str| meta::str_at(endpoint, &["targetRef", field]).to_owned();
                let node = meta::str_at(endpoint, &["nodeName"]).to_owned();
                found.push(Address { address, port, pod: target("name"), pod_namespace: target("namespace"), node });
            }
        }
    }
    found
}
