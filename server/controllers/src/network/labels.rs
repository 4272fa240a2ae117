//! The labels of EndpointSlices and Endpoints that controllers and proxies agree on.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use trireme_client::{Index, Informer, Object, ObjectKey};

/// Ties an EndpointSlice to its Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The component that writes an EndpointSlice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Is there if the Service has no cluster address.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the last change that led to a write happened.
pub(super) const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The key of a slice's Service.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.namespace(), service))
}

/// Whether this controller writes the slice.
pub(super) fn is_managed_by(slice: &EndpointSlice, controller: &str) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == controller)
}

/// EndpointSlices by their Service.
pub(super) struct ByService(Index<EndpointSlice>);

impl ByService {
    pub(super) fn of(slices: &Arc<Informer<EndpointSlice>>) -> Self {
        Self(slices.index("service", |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect()))
    }

    /// The slices of a Service that this controller writes and that are not being deleted.
    pub(super) fn managed(&self, service: &ObjectKey, controller: &str) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.0.get(&service.to_string());
        slices.retain(|slice| is_managed_by(slice, controller) && slice.metadata.deletion_timestamp.is_none());
        slices
    }
}
