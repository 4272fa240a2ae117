//! EndpointSlices of Services without a selector: copies of the Endpoints that users or controllers wrote for them, because proxies
//! read only slices.
//!
//! Owns the EndpointSlices labelled `endpointslice.kubernetes.io/managed-by: endpointslicemirroring-controller.k8s.io`. Must not
//! mirror Endpoints that say `endpointslice.kubernetes.io/skip-mirror: "true"` or that hold a leader election.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#endpointslice-mirroring>.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use trireme_client::{Client, DeleteOptions, EventKind, EventRecorder, Informer, Object, ObjectKey};

use super::labels::{ByService, is_managed_by, service_of};
use crate::Error;
use crate::runtime::{Context, Controller, Next, OwnWrites, Watches};
use plan::Plan;

/// The EndpointSlice mirroring controller.
pub(crate) struct EndpointSliceMirroring {
    client: Client,
    recorder: EventRecorder,
    services: Arc<Informer<Service>>,
    endpoints: Arc<Informer<Endpoints>>,
    slices: Arc<Informer<EndpointSlice>>,
    by_service: ByService,
    writes: OwnWrites<EndpointSlice>,
}

impl Controller for EndpointSliceMirroring {
    const NAME: &'static str = "endpointslicemirroring-controller";
    const COMPONENT: &'static str = "endpoint-slice-mirroring-controller";
    const QUEUE: &'static str = "endpoint_slice_mirroring";
    type Key = ObjectKey;
    type Reads = (Arc<Informer<Service>>, Arc<Informer<Endpoints>>, Arc<Informer<EndpointSlice>>);

    fn new((services, endpoints, slices): Self::Reads, context: &Context) -> Option<Self> {
        Some(Self {
            client: context.client.clone(),
            recorder: context.recorder.clone(),
            by_service: ByService::of(&slices),
            writes: OwnWrites::new(&slices),
            services,
            endpoints,
            slices,
        })
    }

    fn watch(self: &Arc<Self>, watches: &mut Watches<'_, ObjectKey>) {
        watches.on(&self.services, |event| [ObjectKey::of(&**event.object())]);
        watches.on(&self.endpoints, |event| [ObjectKey::of(&**event.object())]);
        watches.on(&self.slices, |event| {
            let ours = event.versions().any(|slice| is_managed_by(slice, plan::MANAGER));
            if ours { event.versions().filter_map(|slice| service_of(slice)).collect::<Vec<_>>() } else { Vec::new() }
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.writes.settle(key).await?;
        let existing = self.by_service.managed(key, plan::MANAGER);
        let mirrored = self.endpoints.get_key(key).filter(|endpoints| plan::should_mirror(endpoints));
        let service = self.services.get_key(key).filter(|service| service.spec.as_ref().is_none_or(|spec| spec.selector.is_none()));
        let (Some(endpoints), Some(_)) = (mirrored, service) else {
            self.write(key, Plan { delete: existing, ..Plan::default() }).await?;
            return Ok(Next::Wait);
        };
        let plan = plan::plan(&endpoints, &existing);
        if plan.invalid > 0 {
            let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
            self.recorder.record(&*endpoints, EventKind::Warning, "InvalidIPAddress", message);
        }
        if plan.skipped > plan.invalid {
            let message = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                plan::MAX_PER_SUBSET,
                plan.skipped
            );
            self.recorder.record(&*endpoints, EventKind::Warning, "TooManyAddressesToMirror", message);
        }
        let result = self.write(key, plan).await;
        if let Err(error) = &result
            && !error.is_expected()
        {
            let message = format!("Error updating EndpointSlices for Endpoints {key}: {error}");
            self.recorder.record(&*endpoints, EventKind::Warning, "FailedToUpdateEndpointSlices", message);
        }
        result.map(|()| Next::Wait)
    }
}

impl EndpointSliceMirroring {
    async fn write(&self, key: &ObjectKey, plan: Plan) -> Result<(), Error> {
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
