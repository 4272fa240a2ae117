//! Which EndpointSlices to create, change and delete. No I/O.
//!
//! Endpoints stay in the slice they are in; new ones fill the slices that are rewritten anyway, then make new slices. So a
//! changed pod costs one small write, however large the Service.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use trireme_client::Object;

use crate::network::desired;
use crate::network::labels::{HEADLESS, MANAGED_BY, SERVICE_NAME, TRIGGER_TIME_ANNOTATION};
use crate::ownership::{controller_reference, is_controlled_by};

/// Who writes these slices.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Endpoints in one slice.
const MAX_PER_SLICE: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

/// Slices hold endpoints of one family with one set of ports.
pub(crate) type Shape = (String, String);

struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<String, Endpoint>,
}

pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Plan {
    let families = desired::families(service);
    let mut groups = group(service, pods, &families, zone_of);
    let mut plan = Plan::default();
    let mut by_shape: BTreeMap<Shape, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_shape.entry(shape(&slice.address_type, slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    // A Service without any endpoint still has one empty slice of each family, which says so.
    for family in &families {
        if !groups.keys().any(|(known, _)| known == family) {
            let kept = by_shape.keys().find(|(known, _)| known == family).cloned();
            let shape = kept.unwrap_or_else(|| shape(family, &[]));
            let ports = by_shape.get(&shape).and_then(|slices| slices.first()).and_then(|slice| slice.ports.clone()).unwrap_or_default();
            groups.insert(shape, Group { ports, endpoints: BTreeMap::new() });
        }
    }
    for (shape, group) in groups {
        let present = by_shape.remove(&shape).unwrap_or_default();
        fit(service, &shape.0, group, &present, &mut plan);
    }
    plan.delete.extend(by_shape.into_values().flatten().cloned());
    plan
}

/// The shape of a slice of this family with these ports.
pub(crate) fn shape(family: &str, ports: &[EndpointPort]) -> Shape {
    let mut keys: Vec<String> = ports
        .iter()
        .map(|port| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            format!(
                "{}|{}|{}|{}",
                text(&port.name),
                port.port.unwrap_or_default(),
                port.protocol.as_deref().unwrap_or("TCP"),
                text(&port.app_protocol)
            )
        })
        .collect();
    keys.sort();
    (family.to_owned(), keys.join(","))
}

fn group(service: &Service, pods: &[Arc<Pod>], families: &[String], zone_of: impl Fn(&str) -> Option<String>) -> BTreeMap<Shape, Group> {
    let mut groups: BTreeMap<Shape, Group> = BTreeMap::new();
    for pod in pods {
        for family in families {
            let Some(address) = desired::address_of(pod, family) else { continue };
            let ports = desired::ports(service, pod);
            let zone = crate::pods::node_name(pod).and_then(&zone_of);
            let endpoint = desired::endpoint(service, pod, address, zone);
            groups
                .entry(shape(family, &ports))
                .or_insert_with(|| Group { ports, endpoints: BTreeMap::new() })
                .endpoints
                .insert(pod.uid().to_owned(), endpoint);
        }
    }
    groups
}

/// Puts the endpoints of one shape into the slices of that shape.
fn fit(service: &Service, family: &str, mut group: Group, present: &[&Arc<EndpointSlice>], plan: &mut Plan) {
    let mut changed: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    let mut untouched: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in present {
        let old = slice.endpoints.as_deref().unwrap_or_default();
        let kept: Vec<Endpoint> = old
            .iter()
            .filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.as_ref())
            .filter_map(|uid| group.endpoints.remove(uid))
            .collect();
        let same = kept == old && meta_is_right(service, slice);
        if same { &mut untouched } else { &mut changed }.push((slice, kept));
    }
    let mut rest: Vec<Endpoint> = group.endpoints.into_values().collect();
    for (_, kept) in &mut changed {
        let room = MAX_PER_SLICE.saturating_sub(kept.len()).min(rest.len());
        kept.extend(rest.drain(..room));
    }
    // One more write to a slice with room is better than one more slice.
    if !rest.is_empty() && rest.len() < MAX_PER_SLICE {
        let roomy = untouched.iter().position(|(_, kept)| kept.len() + rest.len() <= MAX_PER_SLICE);
        if let Some(at) = roomy {
            let (slice, mut kept) = untouched.swap_remove(at);
            kept.append(&mut rest);
            changed.push((slice, kept));
        }
    }
    let mut filled = untouched.len();
    let mut empty = Vec::new();
    for (slice, kept) in changed {
        if kept.is_empty() {
            empty.push(slice);
        } else {
            filled += 1;
            plan.update.push(rewritten(service, slice, kept));
        }
    }
    while !rest.is_empty() {
        let chunk: Vec<Endpoint> = rest.drain(..rest.len().min(MAX_PER_SLICE)).collect();
        filled += 1;
        plan.create.push(created(service, family, group.ports.clone(), chunk));
    }
    if filled == 0 {
        match empty.pop() {
            Some(slice) => plan.update.push(rewritten(service, slice, Vec::new())),
            None => plan.create.push(created(service, family, group.ports, Vec::new())),
        }
    }
    plan.delete.extend(empty.into_iter().cloned());
}

fn wanted_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    if cluster_ip == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn meta_is_right(service: &Service, slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref() == Some(&wanted_labels(service)) && is_controlled_by(&slice.metadata, service)
}

fn rewritten(service: &Service, slice: &EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut slice = slice.clone();
    slice.metadata.labels = Some(wanted_labels(service));
    slice.metadata.owner_references = Some(vec![controller_reference(service)]);
    if let Some(annotations) = &mut slice.metadata.annotations {
        annotations.remove(TRIGGER_TIME_ANNOTATION);
    }
    slice.endpoints = Some(endpoints);
    slice
}

fn created(service: &Service, family: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name())),
            namespace: service.metadata.namespace.clone(),
            labels: Some(wanted_labels(service)),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests;
