//! Which pods a Service selects, and which Services an event of a pod concerns.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use trireme_client::{Event, Informer, Object, ObjectKey, labels};

use super::desired;
use crate::pods;

/// Whether the endpoints of a Service follow from its selector.
pub(super) fn has_selected_endpoints(service: &Service) -> bool {
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    selector(service).is_some() && !external && service.metadata.deletion_timestamp.is_none()
}

fn selector(service: &Service) -> Option<&labels::Labels> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// The pods of the Service's namespace that it selects and that could be endpoints.
pub(super) fn selected(service: &Service, all: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    all.list_namespace(service.namespace())
        .into_iter()
        .filter(|pod| labels::matches_map(selector, pod.metadata.labels.as_ref()) && !pods::is_terminal(pod))
        .collect()
}

/// The Services that selected the pod before the event or select it now, if the event changes what an endpoint shows.
pub(super) fn concerned(event: &Event<Pod>, services: &Informer<Service>) -> Vec<ObjectKey> {
    if event.old().is_some_and(|old| desired::same_endpoint(old, event.object())) {
        return Vec::new();
    }
    services
        .list_namespace(event.object().namespace())
        .iter()
        .filter(|service| {
            let Some(selector) = selector(service) else { return false };
            event.versions().any(|pod| labels::matches_map(selector, pod.metadata.labels.as_ref()))
        })
        .map(|service| ObjectKey::of(&**service))
        .collect()
}
