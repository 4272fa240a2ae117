//! What readers of pod resources are told of devices.

use std::collections::BTreeSet;

use super::devices::Devices;

/// One device, of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) resource: String,
    pub(crate) id: String,
    pub(crate) numa_nodes: BTreeSet<i64>,
}

impl Devices {
    /// The devices that a container has.
    pub(crate) fn of_container(&self, uid: &str, container: &str) -> Vec<Share> {
        let state = self.state.lock();
        let grants = state.ledger.of_container(uid, container).into_iter().flatten().filter(|(_, grant)| grant.answer.is_some());
        let share = |resource: &String, id: &String, nodes: &BTreeSet<i64>| Share {
            resource: resource.clone(),
            id: id.clone(),
            numa_nodes: nodes.clone(),
        };
        grants.flat_map(|(resource, grant)| grant.devices.iter().map(|(id, nodes)| share(resource, id, nodes))).collect()
    }

    /// The devices that containers have or may have.
    pub(crate) fn healthy(&self) -> Vec<Share> {
        let state = self.state.lock();
        let all = state.inventory.all_healthy();
        all.map(|(resource, id, device)| Share { resource: resource.clone(), id: id.clone(), numa_nodes: device.numa_nodes.clone() })
            .collect()
    }
}
