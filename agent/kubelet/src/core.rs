//! What all parts of a running kubelet share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use trireme_client::{Client, EventRecorder, Informer, InformerOptions};

use crate::{
    amount::Amount,
    cgroup::Cgroups,
    clock::Clock,
    container::fields::Place,
    csi::{Csi, Parts},
    device::Devices,
    events::Events,
    image::{Images, inventory::Inventory},
    machine::{self, Machine, Space},
    metrics::{Metrics, Operations},
    node::signal::Readings,
    objects::{Objects, OnChange},
    options::KubeletOptions,
    pod::{observed::Observed, spec},
    pod_index::PodIndex,
    runtime::Runtime,
    volume::content::token::Tokens,
};

/// Shared by the workers, the node's status and the kubelet API.
pub(crate) struct Core {
    pub(crate) options: KubeletOptions,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) objects: Objects,
    pub(crate) tokens: Tokens,
    pub(crate) csi: Arc<Csi>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) images: Images,
    /// What is known of the runtime's images.
    pub(crate) image_inventory: tokio::sync::Mutex<Inventory>,
    pub(crate) cgroups: Cgroups,
    pub(crate) machine: Machine,
    pub(crate) allocatable: BTreeMap<String, Amount>,
    pub(crate) services: Arc<Informer<Service>>,
    pub(crate) pods: PodIndex,
    /// This kubelet's Node as the API server last had it.
    pub(crate) node: Arc<RwLock<Option<Arc<Node>>>>,
    /// Why this host cannot run pods although its runtime answers.
    pub(crate) host_trouble: RwLock<Option<String>>,
}

/// What comes in through seams.
pub(crate) struct Seams {
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Where the runtime's calls are counted.
    pub(crate) operations: Operations,
    pub(crate) clock: Clock,
    pub(crate) cgroups: Cgroups,
}

impl Core {
    /// Starts the informers and puts the parts together. `on_change` is told which pods' objects change.
    pub(crate) fn new(options: KubeletOptions, seams: Seams, on_change: OnChange, cancel: &CancellationToken) -> Arc<Core> {
        let Seams { runtime, operations, clock, cgroups } = seams;
        let client = options.client.clone();
        let machine = Machine::look(&options.data_dir);
        let services =
            options.services.clone().unwrap_or_else(|| Informer::start(client.clone(), InformerOptions::default(), cancel.clone()));
        let recorder = EventRecorder::start(client.clone(), "kubelet", &options.node_name, cancel.clone());
        let mine = InformerOptions { field_selector: Some(format!("spec.nodeName={}", options.node_name)), ..Default::default() };
        let events = Events::new(recorder, &options.node_name);
        let node: Arc<RwLock<Option<Arc<Node>>>> = Arc::default();
        let devices = Devices::new(&options.data_dir, on_change.clone(), cancel.clone());
        let csi = Csi::new(Parts {
            client: client.clone(),
            node_name: &options.node_name,
            root: &options.data_dir,
            events: events.clone(),
            node: node.clone(),
            devices: devices.clone(),
            cancel: cancel.clone(),
        });
        Arc::new(Core {
            csi,
            devices,
            allocatable: machine.allocatable(options.max_pods, &options.reserved),
            machine,
            objects: Objects::new(client.clone(), on_change, cancel.clone()),
            tokens: Tokens::new(client.clone()),
            images: Images::new(runtime.clone(), clock.clone()),
            image_inventory: tokio::sync::Mutex::default(),
            events,
            services,
            pods: PodIndex::new(Informer::start_with(
                client.clone(),
                mine,
                |pod: &mut Pod| pod.metadata.managed_fields = None,
                cancel.clone(),
            )),
            node,
            host_trouble: RwLock::new(None),
            cgroups,
            metrics: Metrics::new(&operations),
            runtime,
            clock,
            client,
            options,
        })
    }

    /// The time now, in whole seconds.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now_secs()
    }

    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.options.node_ips.iter().map(ToString::to_string).collect()
    }

    /// The addresses and allocatable resources that the downward API shows to a pod.
    pub(crate) fn place(&self, pod: &Pod, observed: &Observed) -> Place {
        let host_ips = self.host_ips();
        let pod_ips =
            if spec::is_host_network(pod) { host_ips.clone() } else { observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default() };
        Place { host_ips, pod_ips, allocatable: self.allocatable.clone() }
    }

    /// Whether images that lie on this node are still being imported into the runtime.
    pub(crate) fn images_are_coming(&self) -> bool {
        self.options.images_imported.as_ref().is_some_and(|imported| !*imported.borrow())
    }

    /// Measures memory, disks and process ids, for the eviction signals.
    pub(crate) fn readings(&self, image_folder: Option<&Path>) -> Readings {
        Readings {
            memory: Space { free: machine::memory_available(), total: self.machine.memory_bytes },
            node: machine::disk(&self.options.data_dir),
            images: image_folder.and_then(machine::disk),
            pids: machine::pids(self.machine.max_pids),
        }
    }

    /// Where Localhost seccomp profiles are.
    pub(crate) fn seccomp_dir(&self) -> PathBuf {
        self.options.data_dir.join("seccomp")
    }
}
