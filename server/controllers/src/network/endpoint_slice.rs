//! EndpointSlices of Services that have a selector.
//!
//! Owns the EndpointSlices labelled `endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io`. Must not touch
//! others, nor those of Services without a selector.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use trireme_client::{Client, DeleteOptions, Event, EventKind, EventRecorder, Informer, Object, ObjectKey};

use super::labels::{ByService, service_of};
use super::{desired, service};
use crate::Error;
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches};
pub(super) use plan::{Shape, shape};

/// The EndpointSlice controller.
pub(crate) struct EndpointSlices {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    by_service: ByService,
    writes: OwnWrites<EndpointSlice>,
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice-controller";
    const QUEUE: &'static str = "endpoint_slice";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Service>>, Arc<Informer<Pod>>, Arc<Informer<Node>>, Arc<Informer<EndpointSlice>>);

    fn new((services, pods, nodes, slices): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            by_service: ByService::of(&slices),
            writes: OwnWrites::new(&slices),
            services,
            pods,
            nodes,
            slices,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.services, |event| [ObjectKey::of(&**event.object())]);
        let services = Arc::clone(&self.services);
        watches.on(&self.pods, move |event| service::concerned(event, &services));
        watches.on(&self.slices, |event| service_of(event.object()));
        // A node's zone is part of an endpoint.
        let (services, zones) = (Arc::clone(&self.services), Zones::default());
        watches.on(&self.nodes, move |event| {
            let all = if zones.changed(event) { services.list() } else { Vec::new() };
            all.into_iter().map(|service| ObjectKey::of(&*service)).collect::<Vec<_>>()
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.writes.settle(key).await?;
        // The slices of a deleted Service are its dependents: the garbage collector takes them.
        let Some(service) = self.services.get_key(key).filter(|service| service::has_selected_endpoints(service)) else {
            return Ok(Next::Wait);
        };
        let pods = service::selected(&service, &self.pods);
        let existing = self.by_service.managed(key, plan::MANAGER);
        let zone_of = |node: &str| self.nodes.get("", node).and_then(|node| desired::zone(&node));
        let result = self.write(key, plan::plan(&service, &pods, &existing, zone_of)).await;
        if let Err(error) = &result
            && !error.is_expected()
        {
            let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
            self.recorder.record(&*service, EventKind::Warning, "FailedToUpdateEndpointSlices", message);
        }
        result.map(|()| Next::Wait)
    }
}

impl EndpointSlices {
    async fn write(&self, key: &ObjectKey, plan: plan::Plan) -> Result<(), Error> {
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

/// The zones of the nodes whose events have arrived.
#[derive(Default)]
struct Zones(Mutex<HashMap<String, Option<String>>>);

impl Zones {
    /// Whether the event changes a node's zone.
    fn changed(&self, event: &Event<Node>) -> bool {
        let node = event.object();
        let mut zones = self.0.lock();
        if event.is_deletion() {
            zones.remove(node.name());
            return false;
        }
        let zone = desired::zone(node);
        zones.insert(node.name().to_owned(), zone.clone()).unwrap_or(None) != zone
    }
}
