//! What all parts of a running kubelet share.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use parking_lot::RwLock;
use trireme_client::{Client, Informer};

use crate::{
    amount::Amount, cgroup::Cgroups, container::fields::Place, events::Events, image::Images, machine::Machine, metrics::Metrics,
    objects::Objects, options::KubeletOptions, pod::observed::Observed, pod::spec, runtime::Runtime, volume::token::Tokens,
};

/// Shared by the workers, the node's status and the kubelet API.
pub(crate) struct Core {
    pub(crate) options: KubeletOptions,
    pub(crate) runtime: Runtime,
    pub(crate) metrics: Metrics,
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) objects: Objects,
    pub(crate) tokens: Tokens,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) machine: Machine,
    pub(crate) allocatable: BTreeMap<String, Amount>,
    pub(crate) services: Arc<Informer<Service>>,
    pub(crate) pods: Arc<Informer<Pod>>,
    /// Our Node as the API server last had it.
    pub(crate) node: RwLock<Option<Arc<Node>>>,
}

impl Core {
    /// The wall clock. Statuses and tokens are about wall time; delays inside the kubelet use tokio's clock.
    pub(crate) fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // The API keeps whole seconds; comparing with what comes back must not see a difference.
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.options.node_ips.iter().map(ToString::to_string).collect()
    }

    /// What the downward API tells a pod about where it is.
    pub(crate) fn place(&self, pod: &Pod, observed: &Observed) -> Place {
        let host_ips = self.host_ips();
        let pod_ips =
            if spec::is_host_network(pod) { host_ips.clone() } else { observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default() };
        Place { host_ips, pod_ips, allocatable: self.allocatable.clone() }
    }

    /// Whether images that lie on this node are still on their way into the runtime.
    pub(crate) fn images_are_coming(&self) -> bool {
        self.options.images_imported.as_ref().is_some_and(|imported| !*imported.borrow())
    }

    /// Where Localhost seccomp profiles lie.
    pub(crate) fn seccomp_dir(&self) -> std::path::PathBuf {
        self.options.data_dir.join("seccomp")
    }
}
