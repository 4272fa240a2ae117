//! `v1` Endpoints of Services that have a selector.
//!
//! Owns the Endpoints labelled `endpoints.kubernetes.io/managed-by: endpoint-controller`. Must not touch those of Services
//! without a selector.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/services-networking/service/#endpoints>.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Informer, Object, ObjectKey};

use super::service;
use crate::Error;
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches};

/// The Endpoints controller.
pub(crate) struct EndpointsController {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    endpoints: Arc<Informer<Endpoints>>,
    writes: OwnWrites<Endpoints>,
}

impl Controller for EndpointsController {
    const NAME: &'static str = "endpoint-controller";
    const QUEUE: &'static str = "endpoint";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Service>>, Arc<Informer<Pod>>, Arc<Informer<Endpoints>>);

    fn new((services, pods, endpoints): Self::Reads, context: &Context) -> Option<Self> {
        let writes = OwnWrites::new(&endpoints);
        Some(Self { client: context.client.clone(), recorder: context.recorder.clone(), services, pods, endpoints, writes })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.services, |event| [ObjectKey::of(&**event.object())]);
        let services = Arc::clone(&self.services);
        watches.on(&self.pods, move |event| service::concerned(event, &services));
        watches.on(&self.endpoints, |event| [ObjectKey::of(&**event.object())]);
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.writes.settle(key).await?;
        let existing = self.endpoints.get_key(key);
        let Some(service) = self.services.get_key(key) else {
            // Endpoints have no owner; those of this controller go with their Service.
            if let Some(existing) = existing.filter(|existing| plan::is_managed(existing)) {
                self.delete(key, &existing).await?;
            }
            return Ok(Next::Wait);
        };
        if !service::has_selected_endpoints(&service) {
            return Ok(Next::Wait);
        }
        let Some(wanted) = plan::plan(&service, &service::selected(&service, &self.pods), existing.as_deref()) else {
            return Ok(Next::Wait);
        };
        let namespace = Some(key.namespace.as_str());
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

impl EndpointsController {
    async fn delete(&self, key: &ObjectKey, existing: &Endpoints) -> Result<(), Error> {
        match self.client.delete::<Endpoints>(Some(&key.namespace), &key.name, &DeleteOptions::uid(existing.uid())).await {
            Ok(()) => self.writes.deleted(key, existing),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
