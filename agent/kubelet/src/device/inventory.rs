//! What the plugins of this node offer. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};
use trireme_proto::deviceplugin as wire;

/// A resource whose plugin has gone is shown for so long, without devices to give.
const GRACE: Duration = Duration::from_secs(300);
/// More resources than any host has kinds of devices.
const MAX_RESOURCES: usize = 128;
/// More devices of a resource than any host has; the rest is left alone.
const MAX_DEVICES: usize = 65_536;
/// So many ids of a resource's devices are written to disk: nothing is decided by them.
const MAX_KEPT: usize = 4096;
const MAX_ID_BYTES: usize = 256;
const MAX_NUMA_NODES: usize = 64;

/// One device, as its plugin last told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) is_healthy: bool,
    /// Empty where the plugin does not know.
    pub(crate) numa_nodes: BTreeSet<i64>,
}

/// Devices by id.
pub(crate) type DevicesById = BTreeMap<String, Device>;

/// What a list said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) devices: DevicesById,
    /// Why some of it is passed over.
    pub(super) problem: Option<String>,
}

impl Told {
    pub(super) fn of(list: wire::ListAndWatchResponse) -> Told {
        let mut told = Told::default();
        let count = list.devices.len();
        if count > MAX_DEVICES {
            told.problem = Some(format!("{count} devices are offered, only the first {MAX_DEVICES} are used"));
        }
        for device in list.devices.into_iter().take(MAX_DEVICES) {
            if device.id.is_empty() || device.id.len() > MAX_ID_BYTES || device.id.chars().any(char::is_control) {
                told.problem = Some(format!("device id {:?} is not used: ids have 1 to {MAX_ID_BYTES} bytes", device.id));
                continue;
            }
            let numa_nodes = device.topology.into_iter().flat_map(|t| t.nodes).map(|n| n.id).filter(|id| *id >= 0);
            let numa_nodes = numa_nodes.take(MAX_NUMA_NODES).collect();
            told.devices.insert(device.id, Device { is_healthy: device.health == "Healthy", numa_nodes });
        }
        told
    }
}

#[derive(Debug, Default)]
struct Resource {
    devices: DevicesById,
    /// Since when there is no plugin.
    stopped_at: Option<Instant>,
}

impl Resource {
    fn to_give(&self) -> impl Iterator<Item = (&String, &Device)> {
        let is_served = self.stopped_at.is_none();
        self.devices.iter().filter(move |(_, device)| is_served && device.is_healthy)
    }
}

/// How many devices of a resource there are, and how many of them pods may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) capacity: usize,
    pub(crate) allocatable: usize,
}

/// What the node's status says of its devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) by_resource: BTreeMap<String, Amounts>,
    /// Nothing is known of an earlier kubelet's devices: what the node is still said to have is not there.
    pub(crate) is_new: bool,
}

/// All resources that plugins offer, or did a short while ago.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    resources: BTreeMap<String, Resource>,
    /// Resources whose plugins have gone for good: the node is said to have none.
    removed: BTreeSet<String>,
}

impl Inventory {
    /// What an earlier agent knew: nothing to give until the plugins come back.
    pub(super) fn restored(names: impl IntoIterator<Item = String>, now: Instant) -> Inventory {
        let stopped = || Resource { devices: BTreeMap::new(), stopped_at: Some(now) };
        Inventory { resources: names.into_iter().take(MAX_RESOURCES).map(|name| (name, stopped())).collect(), removed: BTreeSet::new() }
    }

    /// Whether there is room for a plugin of this resource.
    pub(super) fn has_room_for(&self, resource: &str) -> bool {
        self.resources.contains_key(resource) || self.resources.len() < MAX_RESOURCES
    }

    /// A plugin offers these from now on. Returns the devices that are new, or whose health is.
    pub(super) fn set(&mut self, resource: &str, devices: DevicesById) -> Vec<String> {
        self.removed.remove(resource);
        let known = self.resources.entry(resource.to_owned()).or_default();
        known.stopped_at = None;
        let before = std::mem::replace(&mut known.devices, devices);
        let health = |device: Option<&Device>| device.map(|device| device.is_healthy);
        let changed = known.devices.iter().filter(|(id, device)| health(before.get(*id)) != Some(device.is_healthy));
        changed.map(|(id, _)| id.clone()).collect()
    }

    /// The plugin is gone: none of its devices can be given.
    pub(super) fn stop(&mut self, resource: &str, now: Instant) {
        if let Some(known) = self.resources.get_mut(resource) {
            known.stopped_at.get_or_insert(now);
        }
    }

    /// Forgets the resources whose plugins stay away; true if there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = |known: &Resource| known.stopped_at.is_some_and(|at| now.duration_since(at) > GRACE);
        let gone: Vec<String> = self.resources.extract_if(.., |_, known| is_over(known)).map(|(name, _)| name).collect();
        let any = !gone.is_empty();
        self.removed.extend(gone);
        any
    }

    pub(super) fn knows(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
    }

    /// Whether a plugin has told of its devices, and is still there.
    pub(super) fn is_served(&self, resource: &str) -> bool {
        self.resources.get(resource).is_some_and(|known| known.stopped_at.is_none())
    }

    pub(super) fn device(&self, resource: &str, id: &str) -> Option<&Device> {
        self.resources.get(resource)?.devices.get(id)
    }

    /// The healthy devices of a resource; None if no plugin offers it.
    pub(super) fn healthy(&self, resource: &str) -> Option<BTreeSet<String>> {
        Some(self.resources.get(resource)?.to_give().map(|(id, _)| id.clone()).collect())
    }

    /// The healthy devices of all resources.
    pub(super) fn all_healthy(&self) -> impl Iterator<Item = (&String, &String, &Device)> {
        self.resources.iter().flat_map(|(name, known)| known.to_give().map(move |(id, device)| (name, id, device)))
    }

    /// The names of the resources, each with its healthy devices, as far as they are worth writing down.
    pub(super) fn registered(&self) -> BTreeMap<String, Vec<String>> {
        let ids = |known: &Resource| known.to_give().map(|(id, _)| id.clone()).take(MAX_KEPT).collect();
        self.resources.iter().map(|(name, known)| (name.clone(), ids(known))).collect()
    }

    pub(super) fn amounts(&self) -> BTreeMap<String, Amounts> {
        let removed = self.removed.iter().map(|name| (name.clone(), Amounts::default()));
        let present = self
            .resources
            .iter()
            .map(|(name, known)| (name.clone(), Amounts { capacity: known.devices.len(), allocatable: known.to_give().count() }));
        removed.chain(present).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, health: &str) -> wire::Device {
        wire::Device { id: id.into(), health: health.into(), topology: None }
    }

    fn told(devices: Vec<wire::Device>) -> Told {
        Told::of(wire::ListAndWatchResponse { devices })
    }

    #[test]
    fn only_healthy_devices_can_be_given_and_none_without_a_plugin() {
        let now = Instant::now();
        let mut inventory = Inventory::default();
        let changed = inventory.set("r", told(vec![device("a", "Healthy"), device("b", "Unhealthy")]).devices);
        assert_eq!(changed, ["a", "b"]);
        assert_eq!(inventory.amounts()["r"], Amounts { capacity: 2, allocatable: 1 });
        assert_eq!(inventory.set("r", told(vec![device("a", "Healthy"), device("b", "Healthy")]).devices), ["b"]);
        inventory.stop("r", now);
        inventory.stop("r", now + Duration::from_secs(200));
        assert_eq!(inventory.amounts()["r"], Amounts { capacity: 2, allocatable: 0 });
        assert!(!inventory.expire(now + GRACE) && inventory.knows("r"));
        assert!(inventory.expire(now + GRACE + Duration::from_secs(1)) && !inventory.knows("r"));
        assert_eq!(inventory.amounts()["r"], Amounts::default(), "the node is told that there are none");
        inventory.set("r", told(vec![device("a", "Healthy")]).devices);
        assert_eq!(inventory.amounts()["r"], Amounts { capacity: 1, allocatable: 1 });
    }

    #[test]
    fn what_a_plugin_says_is_bounded() {
        let many = (0..MAX_DEVICES + 1).map(|n| device(&n.to_string(), "Healthy")).collect();
        let bounded = told(many);
        assert_eq!(bounded.devices.len(), MAX_DEVICES);
        assert!(bounded.problem.unwrap().contains("only the first"));
        let odd =
            told(vec![device("", "Healthy"), device(&"x".repeat(257), "Healthy"), device("a\nb", "Healthy"), device("ok", "Healthy")]);
        assert_eq!(odd.devices.into_keys().collect::<Vec<_>>(), ["ok"]);
        let nodes = (-1..100).map(|id| wire::NumaNode { id }).collect();
        let far = wire::Device { topology: Some(wire::TopologyInfo { nodes }), ..device("a", "Healthy") };
        assert_eq!(told(vec![far]).devices["a"].numa_nodes.len(), MAX_NUMA_NODES);
        let mut full = Inventory::restored((0..MAX_RESOURCES).map(|n| format!("example.com/{n}")), Instant::now());
        assert!(!full.has_room_for("example.com/more") && full.has_room_for("example.com/1"));
        full.expire(Instant::now() + GRACE * 2);
        assert!(full.has_room_for("example.com/more"));
    }
}
