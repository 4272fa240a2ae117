//! Which container has which devices. Pure.

use std::collections::{BTreeMap, BTreeSet};

use trireme_proto::deviceplugin::ContainerAllocateResponse;

/// The devices of one resource that a container has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Grant {
    /// By id, with the NUMA nodes that each had when it was given.
    pub(super) devices: BTreeMap<String, BTreeSet<i64>>,
    /// What the plugin said to them; None while it is asked.
    pub(super) answer: Option<ContainerAllocateResponse>,
}

/// By the names of resources.
type Grants = BTreeMap<String, Grant>;

/// All devices that are given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ledger {
    /// By pod UID, then by container.
    pods: BTreeMap<String, BTreeMap<String, Grants>>,
}

impl Ledger {
    pub(super) fn set(&mut self, uid: &str, container: &str, resource: &str, grant: Grant) {
        self.pods.entry(uid.to_owned()).or_default().entry(container.to_owned()).or_default().insert(resource.to_owned(), grant);
    }

    pub(super) fn get(&self, uid: &str, container: &str, resource: &str) -> Option<&Grant> {
        self.of_container(uid, container)?.get(resource)
    }

    pub(super) fn get_mut(&mut self, uid: &str, container: &str, resource: &str) -> Option<&mut Grant> {
        self.pods.get_mut(uid)?.get_mut(container)?.get_mut(resource)
    }

    /// Takes one grant back.
    pub(super) fn remove(&mut self, uid: &str, container: &str, resource: &str) {
        let Some(containers) = self.pods.get_mut(uid) else { return };
        if let Some(grants) = containers.get_mut(container) {
            grants.remove(resource);
        }
        containers.retain(|_, grants| !grants.is_empty());
        if containers.is_empty() {
            self.pods.remove(uid);
        }
    }

    /// The pod has ended; true if it had devices.
    pub(super) fn release(&mut self, uid: &str) -> bool {
        self.pods.remove(uid).is_some()
    }

    pub(super) fn uids(&self) -> impl Iterator<Item = &String> {
        self.pods.keys()
    }

    pub(super) fn of_container(&self, uid: &str, container: &str) -> Option<&Grants> {
        self.pods.get(uid)?.get(container)
    }

    /// Whether anybody has devices of a resource.
    pub(super) fn has(&self, resource: &str) -> bool {
        self.all().any(|(_, _, name, _)| name == resource)
    }

    /// All grants: pod UID, container, resource.
    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &String, &String, &Grant)> {
        self.pods.iter().flat_map(|(uid, containers)| {
            containers.iter().flat_map(move |(container, grants)| grants.iter().map(move |(name, grant)| (uid, container, name, grant)))
        })
    }

    /// Who has devices of a resource: pod UID, container, and the ids.
    pub(super) fn holders<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Grant)> {
        self.all()
            .filter(move |(_, _, name, _)| *name == resource)
            .map(|(uid, container, _, grant)| (uid.as_str(), container.as_str(), grant))
    }
}
