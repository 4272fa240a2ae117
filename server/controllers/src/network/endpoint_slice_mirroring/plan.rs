//! Which mirrored EndpointSlices to create, change and delete. No I/O.
//!
//! There is one slice for each address family and set of ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as SubsetPort, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::Object;

use crate::network::endpoint_slice::{Shape, shape};
use crate::network::labels::{MANAGED_BY, SERVICE_NAME, TRIGGER_TIME_ANNOTATION};
use crate::ownership::{controller_reference, is_controlled_by};

/// Who writes mirrored slices.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses that are mirrored of one subset.
pub(super) const MAX_PER_SUBSET: usize = 1000;
const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are invalid.
    pub(super) invalid: usize,
    /// Addresses that are not mirrored, the invalid ones among them.
    pub(super) skipped: usize,
}

/// Whether these Endpoints are to be mirrored at all.
pub(super) fn should_mirror(endpoints: &Endpoints) -> bool {
    let skips = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR_LABEL)).is_some_and(|skip| skip == "true");
    let leads = endpoints.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER_ANNOTATION));
    !skips && !leads
}

pub(super) fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let groups = group(endpoints, &mut plan);
    let mut present: BTreeMap<Shape, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        present.entry(shape(&slice.address_type, slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    for (shape, group) in groups {
        let mut slices = present.remove(&shape).unwrap_or_default().into_iter();
        let first = slices.next();
        plan.delete.extend(slices.cloned());
        let wanted = mirrored(endpoints, &shape.0, group);
        match first {
            None => plan.create.push(wanted),
            Some(known) if is_same(endpoints, known, &wanted) => {}
            Some(known) => plan.update.push(renamed(wanted, known)),
        }
    }
    // A slice that has no purpose any more takes the content of one that would be made: one write instead of two.
    for slice in present.into_values().flatten() {
        match plan.create.iter().position(|wanted| wanted.address_type == slice.address_type) {
            Some(at) => {
                let wanted = plan.create.swap_remove(at);
                plan.update.push(renamed(wanted, slice));
            }
            None => plan.delete.push(Arc::clone(slice)),
        }
    }
    if endpoints.metadata.deletion_timestamp.is_some() {
        plan.create.clear();
    }
    plan
}

struct Group {
    ports: Vec<EndpointPort>,
    /// By address, so that the order is always the same.
    endpoints: BTreeMap<String, Endpoint>,
}

fn group(endpoints: &Endpoints, plan: &mut Plan) -> BTreeMap<Shape, Group> {
    let mut groups: BTreeMap<Shape, Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut added = 0;
        for (address, ready) in ready.chain(not_ready) {
            if added == MAX_PER_SUBSET {
                plan.skipped += 1;
                continue;
            }
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                plan.invalid += 1;
                plan.skipped += 1;
                continue;
            };
            added += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups.entry(shape(family, &ports)).or_insert_with(|| Group { ports: ports.clone(), endpoints: BTreeMap::new() });
            group.endpoints.entry(identity(address, ip)).or_insert_with(|| endpoint(address, ip, ready));
        }
    }
    groups
}

/// The identity of an endpoint within a slice.
fn identity(address: &EndpointAddress, ip: IpAddr) -> String {
    let target = address.target_ref.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    format!(
        "{ip}|{}|{}|{}",
        text(address.hostname.as_ref()),
        text(target.and_then(|target| target.namespace.as_ref())),
        text(target.and_then(|target| target.name.as_ref()))
    )
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn port(port: &SubsetPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn mirrored(endpoints: &Endpoints, family: &str, group: Group) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(TRIGGER_TIME_ANNOTATION);
    annotations.remove(LAST_APPLIED_ANNOTATION);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", endpoints.name())),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(group.endpoints.into_values().take(MAX_PER_SUBSET).collect()),
        ports: Some(group.ports),
    }
}

fn is_same(endpoints: &Endpoints, known: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    known.endpoints.as_deref().unwrap_or_default() == wanted.endpoints.as_deref().unwrap_or_default()
        && known.metadata.labels == wanted.metadata.labels
        && known.metadata.annotations.as_ref().filter(|all| !all.is_empty()) == wanted.metadata.annotations.as_ref()
        && is_controlled_by(&known.metadata, endpoints)
}

/// The wanted content under the name, and in the place, of a slice that is there.
fn renamed(mut wanted: EndpointSlice, known: &EndpointSlice) -> EndpointSlice {
    wanted.metadata.generate_name = None;
    wanted.metadata.name = known.metadata.name.clone();
    wanted.metadata.uid = known.metadata.uid.clone();
    wanted.metadata.resource_version = known.metadata.resource_version.clone();
    wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(subsets: Value) -> Endpoints {
        serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "ns", "uid": "e", "labels": {"app": "db"}},
            "subsets": subsets}))
        .unwrap()
    }

    fn ips(slice: &EndpointSlice) -> Vec<&str> {
        slice.endpoints.iter().flatten().map(|endpoint| endpoint.addresses[0].as_str()).collect()
    }

    fn stored(mut slice: EndpointSlice, name: &str) -> Arc<EndpointSlice> {
        slice.metadata.name = Some(name.to_owned());
        slice.metadata.generate_name = None;
        slice.metadata.resource_version = Some("7".to_owned());
        Arc::new(slice)
    }

    #[test]
    fn case_20_slices_follow_their_endpoints() {
        let subset = |ips: &[&str]| {
            let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            json!([{"addresses": addresses, "ports": [{"name": "sql", "port": 5432}]}])
        };
        let first = plan(&endpoints(subset(&["192.0.2.10", "192.0.2.11", "fd00::1", "no address"])), &[]);
        assert_eq!((first.create.len(), first.invalid, first.skipped), (2, 1, 1), "one slice for each family");
        let v4 = first.create.iter().find(|slice| slice.address_type == "IPv4").unwrap();
        assert_eq!(ips(v4), ["192.0.2.10", "192.0.2.11"]);
        let labels = v4.metadata.labels.as_ref().unwrap();
        assert_eq!((labels[MANAGED_BY].as_str(), labels[SERVICE_NAME].as_str(), labels["app"].as_str()), (MANAGER, "db", "db"));
        assert_eq!(v4.metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");

        let there = [stored(v4.clone(), "db-1")];
        let same = plan(&endpoints(subset(&["192.0.2.11", "192.0.2.10"])), &there);
        assert!(same.create.is_empty() && same.update.is_empty() && same.delete.is_empty(), "{same:?}");
        let fewer = plan(&endpoints(subset(&["192.0.2.11"])), &there);
        assert_eq!((ips(&fewer.update[0]), fewer.update[0].name()), (vec!["192.0.2.11"], "db-1"));
        let other_port = plan(&endpoints(json!([{"addresses": [{"ip": "192.0.2.10"}], "ports": [{"port": 1}]}])), &there);
        assert_eq!((other_port.create.len(), other_port.delete.len(), other_port.update[0].name()), (0, 0, "db-1"), "reused");
        assert_eq!(plan(&endpoints(json!([])), &there).delete.len(), 1);
    }

    #[test]
    fn case_20_a_thousand_addresses_are_the_most() {
        let addresses: Vec<Value> = (0..1003).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let plan = plan(&endpoints(json!([{"addresses": addresses, "ports": [{"port": 1}]}])), &[]);
        assert_eq!((plan.create[0].endpoints.as_ref().unwrap().len(), plan.invalid, plan.skipped), (1000, 0, 3));
    }

    #[test]
    fn case_20_some_endpoints_are_not_mirrored() {
        let mut one = endpoints(json!([]));
        assert!(should_mirror(&one));
        one.metadata.labels.as_mut().unwrap().insert(SKIP_MIRROR_LABEL.to_owned(), "true".to_owned());
        assert!(!should_mirror(&one));
        let mut two = endpoints(json!([]));
        two.metadata.annotations.get_or_insert_default().insert(LEADER_ANNOTATION.to_owned(), "{}".to_owned());
        assert!(!should_mirror(&two));
    }
}
