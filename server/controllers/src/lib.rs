//! The controllers: each makes one part of the cluster what its objects say it should be.
//!
//! Owns: a shared [`InformerSet`] that is kept warm on every server, and one folder or file for each controller, which
//! runs only while its server leads ([`Controllers::lead`]).
//!
//! Must not: import the API server or the store, list on a timer, or write back a decoded object: writes are patches of
//! owned fields, made under the leadership's fence and each controller's own identity.
//!
//! Every controller is split into a pure plan (what is and what should be, to actions) and a thin shell around it.
//!
//! Answers to: <https://kubernetes.io/docs/concepts/architecture/controller/>.

mod clock;
mod clusterrole;
mod csr;
mod deployment;
mod discovery;
mod endpoints;
mod error;
mod garbage;
mod informers;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owners;
mod pod_gc;
mod pods;
mod replicaset;
mod root_ca;
mod runtime;
mod service_account;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::ComponentMetrics;
use trireme_client::{Client, EventRecorder, Fence};

pub use csr::{SignError, Signer};
pub use error::Error;
pub use informers::{InformerSet, SHARED_INFORMERS};
use runtime::Lead;

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
    /// The certificate authority that pods trust (`kube-root-ca.crt`), PEM.
    pub root_ca_pem: String,
    /// How often node health is looked at.
    pub node_monitor_period: Duration,
    /// A node whose Lease was not renewed for this long is not healthy.
    pub node_monitor_grace: Duration,
    /// So many terminated pods are kept.
    pub terminated_pod_threshold: usize,
    /// Workers of each controller.
    pub concurrency: usize,
    /// Signs approved certificate requests; none: nobody does.
    pub signer: Option<Arc<dyn Signer>>,
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
            root_ca_pem: String::new(),
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace: Duration::from_secs(40),
            terminated_pod_threshold: 12_500,
            concurrency: 5,
            signer: None,
            metrics: ComponentMetrics::new(),
        }
    }
}

/// Gives the client that speaks as a controller, e.g. `deployment-controller`.
type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// All controllers of a server: warm from the start, working only while leading.
pub struct Controllers {
    client_for: ClientFor,
    informers: Arc<InformerSet>,
    options: Arc<ControllerOptions>,
}

/// The Lease that tells who leads.
const LEASE: &str = "kube-controller-manager";

impl Controllers {
    /// Starts the informers. `client_for` is called with each controller's name as upstream spells it
    /// (`deployment-controller`, `node-controller`, ...) and with [`SHARED_INFORMERS`] for the informers themselves, which
    /// need to list and watch everything.
    pub fn start(
        client_for: impl Fn(&str) -> Client + Send + Sync + 'static,
        options: ControllerOptions,
        cancel: &CancellationToken,
    ) -> Arc<Self> {
        let informers = InformerSet::start(&client_for(SHARED_INFORMERS), cancel);
        options.metrics.set_leading(LEASE, false);
        Arc::new(Self { client_for: Arc::new(client_for), informers: Arc::new(informers), options: Arc::new(options) })
    }

    /// The informers, to be shared with the scheduler of the same server.
    #[must_use]
    pub fn informers(&self) -> &Arc<InformerSet> {
        &self.informers
    }

    /// Works under this leadership until `cancel`; returns when nothing works any more.
    ///
    /// `revision` is one that the leadership's first entry produced or followed: work starts when every informer has
    /// passed it. If bookmarks do not say so in time, the informer lists once.
    pub async fn lead(&self, fence: Fence, revision: i64, cancel: CancellationToken) {
        let caught_up = self.informers.ensure_revision(revision);
        tokio::select! {
            () = caught_up => {}
            () = cancel.cancelled() => return,
        }
        tracing::info!(term = fence.term, revision, "controllers start");
        let client_for = Arc::clone(&self.client_for);
        let fenced = move |name: &str| client_for(name).with_fence(fence).with_field_manager(name);
        let recorder = EventRecorder::start(fenced(SHARED_INFORMERS), "controllers", &self.options.host, cancel.child_token());
        let (informers, options, metrics) = (Arc::clone(&self.informers), Arc::clone(&self.options), self.options.metrics.clone());
        let mut lead = Lead::new(Arc::new(fenced), informers, options, recorder, metrics, cancel.child_token());
        replicaset::start(&mut lead);
        deployment::start(&mut lead);
        endpoints::start(&mut lead);
        namespace::start(&mut lead);
        service_account::start(&mut lead);
        root_ca::start(&mut lead);
        node_lifecycle::start(&mut lead);
        node_ipam::start(&mut lead);
        pod_gc::start(&mut lead);
        garbage::start(&mut lead);
        csr::start(&mut lead);
        clusterrole::start(&mut lead);
        let (holder, shared) = (format!("{}_{}", self.options.host, fence.term), lead.client(SHARED_INFORMERS));
        lead.spawn(async move { trireme_client::publish_leader(shared, LEASE, &holder).await });
        self.options.metrics.set_leading(LEASE, true);
        cancel.cancelled().await;
        self.options.metrics.set_leading(LEASE, false);
        lead.stop().await;
        tracing::info!(term = fence.term, "controllers stopped");
    }
}
