//! The `kubernetes` Service and its endpoints: the servers that are alive, and only those.
//!
//! Answers to <https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/> and upstream's
//! `kubernetesservice` controller. The caller passes the live servers: Raft knows them better than any lease.

use std::net::IpAddr;

use serde_json::{Value, json};
use trireme_api::meta;

use super::{Repair, WriteError, Writer};
use trireme_apiserver::storage::lookup::ObjectReader;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// The Service.
pub fn service(service_ip: IpAddr, https_port: u16) -> Value {
    let family = if service_ip.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": service_ip.to_string(), "clusterIPs": [service_ip.to_string()],
            "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": https_port}],
        },
    })
}

/// The servers' port may change from one start to the next; everything else is left as it is.
pub fn repair_service(wanted: &Value, actual: &Value) -> Repair {
    let ports = |service: &Value| {
        meta::list_at(service, &["spec", "ports"])
            .iter()
            .map(|port| (port["name"].clone(), port["port"].clone(), port["targetPort"].clone()))
            .collect::<Vec<_>>()
    };
    if ports(wanted) == ports(actual) {
        return Repair::Nothing;
    }
    let mut repaired = actual.clone();
    repaired["spec"]["ports"] = wanted["spec"]["ports"].clone();
    Repair::Update(repaired)
}

fn sorted(alive: &[IpAddr]) -> Vec<String> {
    let mut addresses = alive.to_vec();
    addresses.sort();
    addresses.dedup();
    addresses.iter().map(IpAddr::to_string).collect()
}

/// The Endpoints object for these servers.
pub fn endpoints(alive: &[IpAddr], https_port: u16) -> Value {
    let addresses: Vec<_> = sorted(alive).into_iter().map(|ip| json!({"ip": ip})).collect();
    let mut object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
    });
    if !addresses.is_empty() {
        object["subsets"] = json!([{"addresses": addresses, "ports": [{"name": "https", "port": https_port, "protocol": "TCP"}]}]);
    }
    object
}

/// The EndpointSlice object for these servers.
pub fn endpoint_slice(alive: &[IpAddr], https_port: u16) -> Value {
    let family = if alive.first().is_none_or(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    let endpoints: Vec<_> = sorted(alive).into_iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": family, "endpoints": endpoints,
        "ports": [{"name": "https", "port": https_port, "protocol": "TCP"}],
    })
}

/// The fields of an object that name the servers' addresses, without the fields that the API server sets.
fn essence(object: &Value) -> Value {
    let slice = meta::list_at(object, &["endpoints"]).iter().map(|endpoint| &endpoint["addresses"]).collect::<Vec<_>>();
    let subsets = meta::list_at(object, &["subsets"])
        .iter()
        .map(|subset| {
            let ips: Vec<_> = meta::list_at(subset, &["addresses"]).iter().map(|address| &address["ip"]).collect();
            let ports: Vec<_> = meta::list_at(subset, &["ports"]).iter().map(|port| &port["port"]).collect();
            json!({"ips": ips, "ports": ports})
        })
        .collect::<Vec<_>>();
    let ports = meta::list_at(object, &["ports"]).iter().map(|port| &port["port"]).collect::<Vec<_>>();
    json!({"slice": slice, "subsets": subsets, "ports": ports, "type": object["addressType"]})
}

/// Makes Endpoints and EndpointSlice name exactly the living servers. Cheap when nothing changed; to be called when
/// leadership begins, when membership changes and when a member comes or goes.
///
/// An empty list changes nothing: the caller itself lives, so it can only be a mistake.
pub async fn reconcile_endpoints(writer: &Writer, reader: &dyn ObjectReader, alive: &[IpAddr], https_port: u16) -> Result<(), WriteError> {
    if alive.is_empty() {
        return Ok(());
    }
    let objects = [
        ("", "/api/v1", "endpoints", endpoints(alive, https_port)),
        ("discovery.k8s.io", "/apis/discovery.k8s.io/v1", "endpointslices", endpoint_slice(alive, https_port)),
    ];
    for (group, base, plural, wanted) in objects {
        let collection = format!("{base}/namespaces/{NAMESPACE}/{plural}");
        let item = format!("{collection}/{NAME}");
        match reader.get(group, plural, NAMESPACE, NAME) {
            None => writer.create(&collection, &wanted).await?,
            Some(found) if essence(&found.object) == essence(&wanted) => {}
            Some(found) if found.object["addressType"] != wanted["addressType"] => {
                // The family of a slice cannot be changed.
                writer.delete(&item).await?;
                writer.create(&collection, &wanted).await?;
            }
            Some(_) => writer.replace(&item, &wanted).await?,
        }
    }
    Ok(())
}
