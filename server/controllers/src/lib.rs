//! The controllers: each makes one part of the cluster what its objects say it should be.
//!
//! Owns: the informers that controllers share, kept warm on every server, and one file or folder for each controller, grouped
//! by subject (`workloads`, `nodes`, `network`, `policy`, `identity`, `cluster`), which runs only while its server leads
//! ([`Controllers::lead`]). `runtime` is what a controller is made of, `ownership` what workloads have in common.
//!
//! Must not: import the API server or the store, list on a timer, or write back a decoded object: writes are patches of
//! owned fields, made under the leadership's fence and each controller's own identity.
//!
//! Every controller is split into a pure plan (what is and what should be, to actions) and a thin shell around it.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/architecture/controller/>.

mod cluster;
mod controllers;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod network;
mod nodes;
mod ownership;
mod pods;
mod policy;
mod runtime;
mod storage;
mod switches;
mod workloads;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::ComponentMetrics;
use trireme_client::{Client, EventRecorder, Fence, Informer, Typed};

pub use error::Error;
pub use identity::csr::{SignError, Signer};
pub use identity::token_secret::TokenSigner;
use runtime::{All, Informers, Lead, Prepared};
pub use switches::{ControllerState, Switches, switchable};

/// The name under which the informers list and watch (upstream: the controller manager's own identity).
pub const SHARED_INFORMERS: &str = "shared-informers";

/// What the controllers need to know about the cluster.
#[derive(Clone)]
pub struct ControllerOptions {
    /// The name of the server we run on, for events.
    pub host: String,
    /// Pod networks are cut from these.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's IPv4 pod network.
    pub node_cidr_mask_v4: u8,
    /// Prefix length of a node's IPv6 pod network.
    pub node_cidr_mask_v6: u8,
    /// The Service network, which no pod network may overlap.
    pub service_cidr: Option<IpNet>,
    /// Ports that no Service of type LoadBalancer gets; none: nodes do not answer for such Services.
    pub load_balancer_reserved_ports: Option<Vec<u16>>,
    /// Whether the enforcement of NetworkPolicies is disabled in this cluster.
    pub are_policies_ignored: bool,
    /// The certificate authority that pods trust (`kube-root-ca.crt`), PEM.
    pub root_ca_pem: String,
    /// How often node health is looked at.
    pub node_monitor_period: Duration,
    /// A node whose Lease was not renewed for this long is not healthy.
    pub node_monitor_grace: Duration,
    /// The number of terminated pods that are kept.
    pub terminated_pod_threshold: usize,
    /// Workers of each controller.
    pub concurrency: usize,
    /// Signs approved certificate requests; without it they stay unsigned.
    pub signer: Option<Arc<dyn Signer>>,
    /// Signs the tokens of Secrets of type `kubernetes.io/service-account-token`; none: they stay empty.
    pub token_signer: Option<Arc<dyn TokenSigner>>,
    /// Which controllers run.
    pub switches: Switches,
    /// Where the queues are counted.
    pub metrics: ComponentMetrics,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            cluster_cidrs: Vec::new(),
            node_cidr_mask_v4: 24,
            node_cidr_mask_v6: 64,
            service_cidr: None,
            load_balancer_reserved_ports: None,
            are_policies_ignored: false,
            root_ca_pem: String::new(),
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            concurrency: 5,
            signer: None,
            token_signer: None,
            switches: Switches::default(),
            metrics: ComponentMetrics::new(),
        }
    }
}

/// All controllers of a server: warm from the start, working only while leading.
pub struct Controllers {
    client_for: runtime::ClientFor,
    informers: Informers,
    prepared: Vec<Arc<dyn Prepared>>,
    options: Arc<ControllerOptions>,
}

/// The Lease that names the leader.
const LEASE: &str = "kube-controller-manager";

impl Controllers {
    /// Starts the informers of all controllers. `client_for` is called with each controller's name as upstream spells it
    /// (`deployment-controller`, `node-controller`, ...) and with [`SHARED_INFORMERS`] for the informers themselves, which
    /// need to list and watch everything.
    pub fn start(
        client_for: impl Fn(&str) -> Client + Send + Sync + 'static,
        options: ControllerOptions,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        let informers = Informers::new(client_for(SHARED_INFORMERS), cancel.clone());
        let running = controllers::all().into_iter().filter(|entry| options.switches.runs(entry));
        let prepared = running.map(|entry| entry.declaration.prepare(&informers)).collect();
        options.metrics.set_leading(LEASE, false);
        Arc::new(Self { client_for: Arc::new(client_for), informers, prepared, options: Arc::new(options) })
    }

    /// The informer of all objects of a type, to be shared with the scheduler of the same server.
    #[must_use]
    pub fn informer<T: Typed>(&self) -> Arc<Informer<T>> {
        self.informers.get::<T, All>()
    }

    /// Every controller: whether it works while this server leads, and why it does not.
    #[must_use]
    pub fn states(&self) -> Vec<ControllerState> {
        self.options.switches.states()
    }

    /// Works under this leadership until `cancel`; returns when nothing works any more.
    ///
    /// `revision` is one that the leadership's first entry produced or followed: a controller's work starts when the informers
    /// that it reads have passed it. If bookmarks do not say so in time, the informer lists once.
    pub async fn lead(&self, fence: Fence, revision: i64, cancel: CancellationToken) {
        tracing::info!(term = fence.term, revision, "controllers start");
        let cancel = cancel.child_token();
        let client_for = Arc::clone(&self.client_for);
        let fenced = move |name: &str| client_for(name).with_fence(fence).with_field_manager(name);
        let shared = fenced(SHARED_INFORMERS);
        let lead = Arc::new(Lead {
            recorder: EventRecorder::start(shared.clone(), "controllers", &self.options.host, cancel.clone()),
            client_for: Arc::new(fenced),
            options: Arc::clone(&self.options),
            revision,
            cancel: cancel.clone(),
        });
        let mut tasks = JoinSet::new();
        for controller in &self.prepared {
            tasks.spawn(Arc::clone(controller).lead(Arc::clone(&lead)));
        }
        let holder = format!("{}_{}", self.options.host, fence.term);
        // Another controller manager holds the Lease itself.
        let is_manager = !self.options.switches.manager_off;
        self.options.metrics.set_leading(LEASE, is_manager);
        let publish = async {
            if is_manager {
                trireme_client::publish_leader(shared, LEASE, &holder).await;
            }
        };
        let beside = async {
            tokio::join!(self.informers.ensure_revision(revision), publish);
        };
        cancel.run_until_cancelled(beside).await;
        cancel.cancelled().await;
        self.options.metrics.set_leading(LEASE, false);
        while tasks.join_next().await.is_some() {}
        tracing::info!(term = fence.term, "controllers stopped");
    }
}
