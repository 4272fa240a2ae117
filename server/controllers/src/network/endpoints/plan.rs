//! `v1` Endpoints, for clients that still read them. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::network::desired;
use crate::pods;

/// Addresses in one object; the rest is left out and the annotation says so.
const MAX_ADDRESSES: usize = 1000;
const CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub(super) fn is_managed(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY_LABEL)).is_some_and(|by| by == MANAGED_BY)
}

/// The Endpoints that should be; `None` if they are as they should be.
pub(super) fn plan(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Option<Endpoints> {
    let family = desired::families(service).into_iter().next().unwrap_or_else(|| "IPv4".to_owned());
    let (subsets, over) = subsets(service, pods, &family);
    let labels = labels(service);
    let mut annotations = existing.and_then(|known| known.metadata.annotations.clone()).unwrap_or_default();
    if over {
        annotations.insert(CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(CAPACITY);
    }
    if let Some(known) = existing {
        let same = known.subsets.clone().unwrap_or_default() == subsets
            && known.metadata.labels.as_ref() == Some(&labels)
            && known.metadata.annotations.clone().unwrap_or_default() == annotations;
        if same {
            return None;
        }
    }
    Some(Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            resource_version: existing.and_then(|known| known.metadata.resource_version.clone()),
            uid: existing.and_then(|known| known.metadata.uid.clone()),
            owner_references: existing.and_then(|known| known.metadata.owner_references.clone()),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    labels
}

/// Addresses that share their ports form a subset, ready ones and others apart.
fn subsets(service: &Service, pods: &[Arc<Pod>], family: &str) -> (Vec<EndpointSubset>, bool) {
    type Key = Vec<(String, i32, String)>;
    let publish = desired::publishes_not_ready(service);
    let mut groups: BTreeMap<Key, EndpointSubset> = BTreeMap::new();
    let mut count = 0;
    let mut over = false;
    for pod in pods {
        let Some(address) = desired::address_of(pod, family) else { continue };
        if pods::is_terminating(pod) && !publish {
            continue;
        }
        if count == MAX_ADDRESSES {
            over = true;
            break;
        }
        count += 1;
        let ports: Vec<EndpointPort> = desired::ports(service, pod)
            .into_iter()
            .map(|port| EndpointPort {
                name: port.name.filter(|name| !name.is_empty()),
                port: port.port.unwrap_or_default(),
                protocol: port.protocol,
                app_protocol: port.app_protocol,
            })
            .collect();
        let key: Key = ports
            .iter()
            .map(|port| (port.name.clone().unwrap_or_default(), port.port, port.protocol.clone().unwrap_or_default()))
            .collect();
        let subset = groups
            .entry(key)
            .or_insert_with(|| EndpointSubset { ports: Some(ports).filter(|ports| !ports.is_empty()), ..EndpointSubset::default() });
        let entry = EndpointAddress {
            ip: address.to_owned(),
            hostname: desired::hostname(service, pod),
            node_name: pods::node_name(pod).map(str::to_owned),
            target_ref: Some(desired::target(pod)),
        };
        let list = if publish || pods::is_ready(pod) { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(entry);
    }
    let mut subsets: Vec<EndpointSubset> = groups.into_values().collect();
    for list in subsets.iter_mut().flat_map(|subset| [&mut subset.addresses, &mut subset.not_ready_addresses]).flatten() {
        list.sort_by(|one, other| one.ip.cmp(&other.ip));
    }
    (subsets, over)
}
