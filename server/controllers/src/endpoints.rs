//! EndpointSlices and Endpoints: which pods stand behind a Service.
//!
//! Owns the EndpointSlices labelled `endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io` and the
//! Endpoints of Services that have a selector. Must not touch those of Services without one.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>.

mod desired;
mod legacy;
mod slices;

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use trireme_client::{Client, DeleteOptions, Event, EventKind, EventRecorder, Informer, Object, ObjectKey, labels};

use crate::informers::{BY_SERVICE, SERVICE_NAME_LABEL};
use crate::runtime::{Lead, Next, Reconcile};
use crate::writes::OwnWrites;
use crate::{Error, pods};

const SLICE_NAME: &str = "endpointslice-controller";
const LEGACY_NAME: &str = "endpoint-controller";

pub(crate) fn start(lead: &mut Lead) {
    let informers = Arc::clone(&lead.informers);
    let slice_queue = lead.queue("endpoint_slice");
    let legacy_queue = lead.queue("endpoint");
    let slices = Arc::new(SliceController {
        client: lead.client(SLICE_NAME),
        recorder: lead.recorder(SLICE_NAME),
        services: Arc::clone(&informers.services),
        pods: Arc::clone(&informers.pods),
        nodes: Arc::clone(&informers.nodes),
        slices: Arc::clone(&informers.endpoint_slices),
        writes: OwnWrites::new(&informers.endpoint_slices),
    });
    let legacy = Arc::new(LegacyController {
        client: lead.client(LEGACY_NAME),
        recorder: lead.recorder(LEGACY_NAME),
        services: Arc::clone(&informers.services),
        pods: Arc::clone(&informers.pods),
        endpoints: Arc::clone(&informers.endpoints),
        writes: OwnWrites::new(&informers.endpoints),
    });

    let add = {
        let (slice_queue, legacy_queue) = (slice_queue.clone(), legacy_queue.clone());
        move |key: ObjectKey| {
            slice_queue.add(key.clone());
            legacy_queue.add(key);
        }
    };
    let keys = add.clone();
    lead.keep(informers.services.subscribe(move |event| keys(ObjectKey::of(&**event.object()))));
    let services = Arc::clone(&informers.services);
    lead.keep(informers.pods.subscribe(move |event| {
        if event.old().is_some_and(|old| desired::same_endpoint(old, event.object())) {
            return;
        }
        for key in services_of(event, &services) {
            add(key);
        }
    }));
    let keys = slice_queue.clone();
    lead.keep(informers.endpoint_slices.subscribe(move |event| {
        let slice = event.object();
        if let Some(service) = slice.metadata.labels.as_ref().and_then(|all| all.get(SERVICE_NAME_LABEL)) {
            keys.add(ObjectKey::new(slice.namespace(), service));
        }
    }));
    let keys = legacy_queue.clone();
    lead.keep(informers.endpoints.subscribe(move |event| keys.add(ObjectKey::of(&**event.object()))));
    // A node's zone is part of an endpoint.
    let zones = Mutex::new(HashSet::new());
    let (keys, services) = (slice_queue.clone(), Arc::clone(&informers.services));
    lead.keep(informers.nodes.subscribe(move |event| {
        let node = event.object();
        let zone = desired::zone(node);
        let unchanged = match event {
            Event::Updated { old, .. } => desired::zone(old) == zone,
            Event::Added(_) => !zones.lock().insert((node.name().to_owned(), zone.clone())) || zone.is_none(),
            Event::Deleted(_) => true,
        };
        if !unchanged {
            services.list().iter().for_each(|service| keys.add(ObjectKey::of(&**service)));
        }
    }));
    lead.work(SLICE_NAME, &slice_queue, &slices);
    lead.work(LEGACY_NAME, &legacy_queue, &legacy);
}

/// The Services that selected the pod before the event or select it now.
fn services_of(event: &Event<Pod>, services: &Informer<Service>) -> Vec<ObjectKey> {
    let pod = event.object();
    services
        .list_namespace(pod.namespace())
        .iter()
        .filter(|service| {
            let Some(selector) = selector(service) else { return false };
            event.old().into_iter().chain([pod]).any(|pod| labels::matches_map(selector, pod.metadata.labels.as_ref()))
        })
        .map(|service| ObjectKey::of(&**service))
        .collect()
}

fn selector(service: &Service) -> Option<&labels::Labels> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// The pods that a Service selects and that could be endpoints.
fn selected(service: &Service, all: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    all.list_namespace(service.namespace())
        .into_iter()
        .filter(|pod| labels::matches_map(selector, pod.metadata.labels.as_ref()) && !pods::is_terminal(pod))
        .collect()
}

struct SliceController {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    writes: OwnWrites<EndpointSlice>,
}

impl Reconcile<ObjectKey> for SliceController {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.writes.settle(key).await?;
        let Some(service) = self.services.get_key(key) else {
            // The slices are the Service's dependents: the garbage collector takes them.
            return Ok(Next::Wait);
        };
        let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
        if selector(&service).is_none() || external || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let pods = selected(&service, &self.pods);
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .by_index(BY_SERVICE, &key.to_string())
            .into_iter()
            .filter(|slice| slices::is_managed(slice) && slice.metadata.deletion_timestamp.is_none())
            .collect();
        let zone_of = |node: &str| self.nodes.get("", node).and_then(|node| desired::zone(&node));
        let plan = slices::plan(&service, &pods, &existing, zone_of);
        let result = self.write(key, plan).await;
        if let Err(error) = &result
            && !error.is_expected()
        {
            let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
            self.recorder.record(&*service, EventKind::Warning, "FailedToUpdateEndpointSlices", message);
        }
        result.map(|()| Next::Wait)
    }
}

impl SliceController {
    async fn write(&self, key: &ObjectKey, plan: slices::Plan) -> Result<(), Error> {
        let namespace = Some(key.namespace.as_str());
        for slice in plan.create {
            match self.client.create(namespace, &slice).await {
                Ok(written) => self.writes.wrote(key, &written),
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in plan.update {
            let written = self.client.replace(namespace, slice.name(), &slice).await?;
            self.writes.wrote(key, &written);
        }
        for slice in plan.delete {
            match self.client.delete::<EndpointSlice>(namespace, slice.name(), &DeleteOptions::uid(slice.uid())).await {
                Ok(()) => self.writes.deleted(key, &slice),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

struct LegacyController {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
    writes: OwnWrites<Endpoints>,
}

impl Reconcile<ObjectKey> for LegacyController {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.writes.settle(key).await?;
        let existing = self.endpoints.get_key(key);
        let namespace = Some(key.namespace.as_str());
        let Some(service) = self.services.get_key(key) else {
            // Endpoints have no owner; those we made go with their Service.
            if let Some(existing) = existing.filter(|existing| legacy::is_managed(existing)) {
                match self.client.delete::<Endpoints>(namespace, &key.name, &DeleteOptions::uid(existing.uid())).await {
                    Ok(()) => self.writes.deleted(key, &existing),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(Next::Wait);
        };
        let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
        if selector(&service).is_none() || external || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let Some(wanted) = legacy::plan(&service, &selected(&service, &self.pods), existing.as_deref()) else {
            return Ok(Next::Wait);
        };
        let written = match &existing {
            Some(_) => self.client.replace(namespace, &key.name, &wanted).await,
            None => self.client.create(namespace, &wanted).await,
        };
        match written {
            Ok(written) => self.writes.wrote(key, &written),
            Err(error) if error.is_namespace_terminating() => {}
            Err(error) => {
                if !error.is_conflict() && !error.is_already_exists() {
                    let message = format!("Failed to update endpoint {key}: {error}");
                    self.recorder.record(&*service, EventKind::Warning, "FailedToUpdateEndpoint", message);
                }
                return Err(error.into());
            }
        }
        Ok(Next::Wait)
    }
}
