//! Whatever happens in whatever order, no device has two containers that may run at the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;
use trireme_proto::deviceplugin::ContainerAllocateResponse;

use super::{
    super::{
        checkpoint::Checkpoint,
        choice::{Choice, Wish},
        inventory::{Device, DevicesById, Inventory},
        ledger::{Grant, Ledger},
        lifetime::may_overlap,
    },
    GPU, asks, pod_of,
};
use crate::pod::spec;

const PODS: usize = 4;
const DEVICES: usize = 7;

#[derive(Clone, Debug)]
enum Step {
    /// A pod asks for devices for one of its containers; the plugin prefers some, and agrees, or the agent ends before it does.
    Ask {
        pod: usize,
        container: usize,
        preferred: Vec<usize>,
        agrees: bool,
    },
    /// A container has lost what it had.
    Lose {
        pod: usize,
        container: usize,
    },
    End {
        pod: usize,
    },
    /// The plugin offers the devices of these numbers, healthy or not.
    Offer {
        devices: BTreeMap<usize, bool>,
    },
    PluginGone,
    /// The agent begins anew with what is on disk; the plugin comes back with all devices.
    Restart,
}

/// Containers that overlap in every way: init containers, sidecars between them, regular ones.
fn pods(counts: &[u32]) -> Vec<Arc<Pod>> {
    let sidecar = |name: &str, count: u32| {
        let mut sidecar = asks(name, count);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    };
    let of = |number: usize| {
        let count = |at: usize| counts[(number * 6 + at) % counts.len()];
        let init = json!([asks("i1", count(0)), sidecar("s1", count(1)), asks("i2", count(2)), sidecar("s2", count(3))]);
        Arc::new(pod_of(&format!("p{number}"), init, json!([asks("m1", count(4)), asks("m2", count(5))])))
    };
    (0..PODS).map(of).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (0..PODS, 0..6usize, prop::collection::vec(0..DEVICES, 0..3), prop::bool::weighted(0.9));
    let step = prop_oneof![
        12 => ask.prop_map(|(pod, container, preferred, agrees)| Step::Ask { pod, container, preferred, agrees }),
        1 => (0..PODS, 0..6usize).prop_map(|(pod, container)| Step::Lose { pod, container }),
        2 => (0..PODS).prop_map(|pod| Step::End { pod }),
        2 => prop::collection::btree_map(0..DEVICES, any::<bool>(), 0..DEVICES).prop_map(|devices| Step::Offer { devices }),
        1 => Just(Step::PluginGone),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

fn id(number: usize) -> String {
    format!("d{number}")
}

fn offered(devices: impl IntoIterator<Item = (usize, bool)>) -> DevicesById {
    devices.into_iter().map(|(number, is_healthy)| (id(number), Device { is_healthy, numa_nodes: BTreeSet::new() })).collect()
}

struct Node {
    pods: Vec<Arc<Pod>>,
    inventory: Inventory,
    ledger: Ledger,
}

impl Node {
    fn container(&self, pod: usize, container: usize) -> (Arc<Pod>, String, usize) {
        let pod = self.pods[pod].clone();
        let (_, container) = spec::all_containers(&pod).nth(container).unwrap();
        let count = container.resources.as_ref().unwrap().limits.as_ref().unwrap()[GPU].0.parse().unwrap();
        let name = container.name.clone();
        (pod, name, count)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask { pod, container, preferred, agrees } => {
                let (pod, container, count) = self.container(*pod, *container);
                if self.ledger.get(spec::uid(&pod), &container, GPU).is_some() {
                    return;
                }
                let wish = Wish { pod: &pod, container: &container, resource: GPU, count };
                let Ok(choice) = Choice::of(wish, &self.inventory, &self.ledger) else { return };
                let picked = choice.pick(&preferred.iter().copied().map(id).collect::<Vec<_>>());
                assert_eq!(picked.len(), count, "as many as were asked for");
                let healthy = self.inventory.healthy(GPU).unwrap();
                assert!(picked.is_subset(&healthy), "only healthy ones");
                let devices = picked.into_iter().map(|id| (id, BTreeSet::new())).collect();
                let grant = Grant { devices, answer: agrees.then(ContainerAllocateResponse::default) };
                self.ledger.set(spec::uid(&pod), &container, GPU, grant);
            }
            Step::Lose { pod, container } => {
                let (pod, container, _) = self.container(*pod, *container);
                self.ledger.remove(spec::uid(&pod), &container, GPU);
            }
            Step::End { pod } => {
                self.ledger.release(spec::uid(&self.pods[*pod]));
            }
            Step::Offer { devices } => {
                self.inventory.set(GPU, offered(devices.clone()));
            }
            Step::PluginGone => self.inventory.stop(GPU, Instant::now()),
            Step::Restart => {
                let checkpoint = Checkpoint { ledger: self.ledger.clone(), registered: self.inventory.registered() };
                let read = Checkpoint::decode(&checkpoint.encode().unwrap()).unwrap();
                let agreed = |ledger: &Ledger| ledger.all().filter(|(.., grant)| grant.answer.is_some()).count();
                assert_eq!(agreed(&read.ledger), agreed(&self.ledger), "nothing that was given is forgotten");
                self.ledger = read.ledger;
                self.inventory = Inventory::restored(read.registered.into_keys(), Instant::now());
                self.inventory.set(GPU, offered((0..DEVICES).map(|number| (number, true))));
            }
        }
    }

    fn check(&self) {
        let holders: Vec<_> = self.ledger.holders(GPU).collect();
        for (at, (uid, container, grant)) in holders.iter().enumerate() {
            for (other_uid, other, other_grant) in &holders[at + 1..] {
                let pod = self.pods.iter().find(|pod| spec::uid(pod) == *uid).unwrap();
                if uid == other_uid && !may_overlap(pod, container, other) {
                    continue;
                }
                let both: Vec<_> = grant.devices.keys().filter(|id| other_grant.devices.contains_key(*id)).collect();
                assert!(both.is_empty(), "{both:?} have {uid}/{container} and {other_uid}/{other}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_device_has_two_live_containers_also_over_restarts(counts in prop::collection::vec(1..4u32, 6..12), steps in steps()) {
        let mut inventory = Inventory::default();
        inventory.set(GPU, offered((0..DEVICES).map(|number| (number, true))));
        let mut node = Node { pods: pods(&counts), inventory, ledger: Ledger::default() };
        for step in &steps {
            node.step(step);
            node.check();
        }
    }
}
