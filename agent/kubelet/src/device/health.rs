//! The health of devices in the statuses of the pods that have them.
//!
//! Answers to <https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/> (`allocatedResourcesStatus`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodStatus, ResourceHealth, ResourceStatus};

use super::devices::Devices;

impl Devices {
    /// Adds to a pod's status how its devices are.
    pub(crate) fn show_health(&self, uid: &str, status: &mut PodStatus) {
        for container in status.container_statuses.iter_mut().flatten() {
            let shown = self.health_of(uid, &container.name);
            container.allocated_resources_status = (!shown.is_empty()).then_some(shown);
        }
    }

    fn health_of(&self, uid: &str, container: &str) -> Vec<ResourceStatus> {
        let shares = self.of_container(uid, container);
        let state = self.state.lock();
        let mut by_resource: BTreeMap<String, Vec<ResourceHealth>> = BTreeMap::new();
        for share in shares {
            // As upstream, a device counts as healthy if no plugin lists it.
            let is_healthy = state.inventory.device(&share.resource, &share.id).is_none_or(|device| device.is_healthy);
            let health = Some(if is_healthy { "Healthy" } else { "Unhealthy" }.to_owned());
            let shown = ResourceHealth { resource_id: share.id, health, ..Default::default() };
            by_resource.entry(share.resource).or_default().push(shown);
        }
        by_resource.into_iter().map(|(name, resources)| ResourceStatus { name, resources: Some(resources) }).collect()
    }
}
