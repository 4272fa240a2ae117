//! A server's control plane: store, API server, bootstrap objects, controllers and scheduler, wired together.
//!
//! Owns the order of starting and stopping, and nothing else: what the parts do is in their crates.

mod addons;
mod components;
mod controller_list;
mod etcd_api;
mod folder;
mod in_process;
mod kubeconfig;
mod leadership;
mod manifests;
mod membership;
mod node_role;
mod quorum_warning;
mod renewal;
mod startup;
mod store_metrics;
mod token_files;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;
use trireme_apiserver::admission::plugins::service_allocation::repair;
use trireme_client::metrics::{ComponentMetrics, CountedTransport, ProcessCollector, register};
use trireme_client::{Client, Fence, Identity, Transport};
use trireme_cluster::pki::ClusterKeys;
use trireme_cluster::tokens::LiveTokens;
use trireme_controllers::{ControllerOptions, Controllers};
use trireme_raft::Store;
use trireme_scheduler::{Scheduler, SchedulerInformers, SchedulerOptions};

use crate::cli::ServerArgs;
use crate::commands::Failure;
use components::Components;
use controller_list::ControllersOf;
use in_process::InProcess;
pub use membership::{FACTS_NOTE, keep_restored};
use membership::{Membership, ThisServer};
use startup::Startup;

/// A server that answers no Raft message for this long leaves the `kubernetes` Service.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);
const ENDPOINTS_INTERVAL: Duration = Duration::from_millis(500);

/// A running control plane.
pub struct ControlPlane {
    store: Store,
    api: ApiServer,
    etcd: Option<tokio::task::JoinHandle<()>>,
    serving: tokio::task::JoinHandle<()>,
    leading: tokio::task::JoinHandle<()>,
    own_node_token: String,
}

/// What every leadership needs.
#[derive(Clone)]
struct Parts {
    store: Store,
    api: ApiServer,
    tokens: LiveTokens,
    keys: Arc<ClusterKeys>,
    controllers: Arc<Controllers>,
    /// None where another scheduler does its work.
    scheduler: Option<Arc<Scheduler>>,
    service_ip: IpAddr,
    service_cidr: String,
    cluster_dns: IpAddr,
    nodes_answer_dns: bool,
    has_local_storage: bool,
    has_resource_metrics: bool,
    https_port: u16,
    server_dir: std::path::PathBuf,
    name: String,
}

impl ControlPlane {
    /// Looks at options and folder, before anything is waited for or written.
    pub fn check(args: &ServerArgs) -> Result<(), Failure> {
        startup::check(args)
    }

    /// Starts it; returns when the API is served.
    pub async fn start(args: &ServerArgs, cancel: &CancellationToken) -> Result<Self, Failure> {
        let startup = Startup::prepare(args)?;
        let listener = startup.listen().await?;
        let peers = startup.listen_for_peers()?;
        let etcd_clients = etcd_api::listen(args).await?;
        let mut member = startup.obtain().await?;
        let certificates = startup.certificates(&member);
        let store = startup.open_store(&mut member, &certificates, peers).await?;
        let start_etcd = |listener| startup.start_etcd_api(&member.keys, &certificates, store.clone(), listener, cancel);
        let etcd = etcd_clients.map(start_etcd).transpose()?;
        let tokens = startup.tokens(&member, &store)?;
        let api = startup.start_api(&member, &store, &tokens, &certificates).await?;
        startup.start_snapshots(&api, &store, cancel);
        let tls = startup.serving_tls(&certificates, &member.facts)?;
        startup.write_files(&member, &tokens, &certificates)?;
        spawn_until(cancel, renewal::keep(certificates, api.clone()));
        let follow = token_files::follow(tokens.clone(), startup.server_dir().to_owned(), member.keys.server_ca.fingerprint()?);
        spawn_until(cancel, follow);
        spawn_until(cancel, quorum_warning::warn(store.clone()));
        let components = Components::new(args.disable_controller_manager, args.disable_scheduler);
        components.serve(&api, args.bind_address, &tls, cancel);
        // This process's numbers are shown here and nowhere else.
        register(api.metrics_registry(), ProcessCollector::new());
        register(api.metrics_registry(), store_metrics::StoreCollector::new(store.clone()));
        let serving = tokio::spawn(serve(api.clone(), listener, tls, cancel.clone()));
        let own_node_token = startup.own_node_token(&member, &tokens)?;
        let parts = Parts::new(&startup, &member, store.clone(), api.clone(), tokens, &components, cancel)?;
        if !args.disable_agent {
            tokio::spawn(node_role::mark(api.clone(), startup.name().to_owned(), cancel.clone()));
        }
        let leading = tokio::spawn(run_leaderships(parts, startup.sealed_keys(&member)?, cancel.clone()));
        Ok(Self { store, api, etcd, serving, leading, own_node_token })
    }

    /// The token with which this server's own node joins.
    pub fn own_node_token(&self) -> &str {
        &self.own_node_token
    }

    /// The API server.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Drains and stops: leadership is handed over first, so that others need no election.
    pub async fn stop(self) {
        // Before the drain, which takes as long as its slowest client.
        if !self.store.hand_over().await {
            tracing::warn!("no other server took the lead: the others, if they are a quorum, have to elect");
        }
        if let Err(error) = self.leading.await {
            tracing::warn!(%error, "leader's work ended badly");
        }
        self.api.stop();
        if let Err(error) = self.serving.await {
            tracing::warn!(%error, "serving ended badly");
        }
        if let Some(etcd) = self.etcd
            && let Err(error) = etcd.await
        {
            tracing::warn!(%error, "serving etcd clients ended badly");
        }
        self.store.shutdown().await;
    }
}

/// Runs something beside the server until it stops.
fn spawn_until(cancel: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let cancel = cancel.clone();
    tokio::spawn(async move { cancel.run_until_cancelled(work).await });
}

async fn serve(api: ApiServer, listener: TcpListener, tls: Arc<rustls::ServerConfig>, cancel: CancellationToken) {
    api.serve(listener, tls, cancel).await;
}

impl Parts {
    fn new(
        startup: &Startup<'_>,
        member: &Membership,
        store: Store,
        api: ApiServer,
        tokens: LiveTokens,
        components: &Components,
        cancel: &CancellationToken,
    ) -> Result<Self, Failure> {
        let transport = Arc::new(InProcess::new(api.clone()));
        let client_for = client_of(counted(transport.clone(), &components.controllers));
        let mut options = ControllerOptions {
            host: startup.name().to_owned(),
            cluster_cidrs: vec![member.facts.cluster_cidr.parse()?],
            service_cidr: Some(member.facts.service_cidr.parse()?),
            load_balancer_reserved_ports: startup.args().balancer_reserved_ports(),
            // On another's pod network it is that one's matter.
            are_policies_ignored: !member.facts.network_policy && member.facts.flannel_backend != "none",
            root_ca_pem: member.keys.server_ca.certificate_pem.clone(),
            signer: Some(Arc::new(startup::CsrSigner::new(member.keys.clone()))),
            token_signer: Some(Arc::new(startup::SecretTokenSigner::new(api.clone()))),
            metrics: components.controllers.clone(),
            ..ControllerOptions::default()
        };
        startup.args().apply_to_controllers(&mut options)?;
        let controllers = Controllers::start(client_for, options, cancel);
        let informers = SchedulerInformers {
            pods: controllers.informer(),
            nodes: controllers.informer(),
            namespaces: controllers.informer(),
            budgets: controllers.informer(),
            services: controllers.informer(),
            replication_controllers: controllers.informer(),
            replica_sets: controllers.informer(),
            stateful_sets: controllers.informer(),
            claims: controllers.informer(),
            volumes: controllers.informer(),
            classes: controllers.informer(),
        };
        let mut options =
            SchedulerOptions { host: startup.name().to_owned(), metrics: components.scheduler.clone(), ..SchedulerOptions::default() };
        startup.args().upstream.apply_to_scheduler(&mut options);
        let client_for = client_of(counted(transport, &components.scheduler));
        let scheduler = (!startup.args().disable_scheduler).then(|| Scheduler::new(client_for("kube-scheduler"), informers, options));
        api.add_operator_routes(Arc::new(ControllersOf::new(store.clone(), controllers.clone(), scheduler.is_some())));
        Ok(Self {
            store,
            api,
            tokens,
            keys: Arc::new(member.keys.clone()),
            controllers,
            scheduler,
            service_ip: startup.service_ip(&member.facts)?,
            service_cidr: member.facts.service_cidr.clone(),
            cluster_dns: member.facts.cluster_dns,
            nodes_answer_dns: startup.nodes_answer_dns(),
            has_local_storage: startup.args().has_local_storage(),
            has_resource_metrics: startup.args().has_resource_metrics(),
            https_port: startup.https_port(),
            server_dir: startup.server_dir().to_owned(),
            name: startup.name().to_owned(),
        })
    }
}

/// A transport whose requests a component counts.
fn counted(transport: Arc<dyn Transport>, metrics: &ComponentMetrics) -> Arc<dyn Transport> {
    Arc::new(CountedTransport::new(transport, metrics.registry(), || "in-process".to_owned()))
}

/// The clients of a component's parts, each under its own name.
fn client_of(transport: Arc<dyn Transport>) -> impl Fn(&str) -> Client + Send + Sync + 'static {
    move |name: &str| Client::new(transport.clone()).with_identity(identity_of(name)).with_user_agent(&format!("trireme/{name}"))
}

/// Who a controller is to the API server: what upstream calls it, in kube-system.
fn identity_of(name: &str) -> Identity {
    match name {
        "kube-scheduler" => {
            Identity { user: "system:kube-scheduler".into(), groups: vec!["system:authenticated".into()], ..Identity::default() }
        }
        trireme_controllers::SHARED_INFORMERS | "event-recorder" | "tokens-controller" => {
            Identity { user: "system:kube-controller-manager".into(), groups: vec!["system:authenticated".into()], ..Identity::default() }
        }
        other => Identity::service_account("kube-system", other),
    }
}

async fn run_leaderships(parts: Parts, sealed: Option<trireme_proto::store::SealedKey>, cancel: CancellationToken) {
    let followed = parts.store.clone();
    let ready = mark_ready_when_followed(parts.store.clone(), parts.api.clone(), cancel.clone());
    let leading = leadership::follow(followed, cancel, move |fence, stop| lead(parts.clone(), sealed.clone(), fence, stop));
    tokio::join!(ready, leading);
}

/// A follower does not bootstrap: it is ready when a leader has.
async fn mark_ready_when_followed(store: Store, api: ApiServer, cancel: CancellationToken) {
    let reader = api.storage().clone();
    let mut status = store.status();
    loop {
        let there = trireme_apiserver::ObjectReader::get(reader.as_ref(), "rbac.authorization.k8s.io", "clusterroles", "", "cluster-admin")
            .is_some()
            && trireme_apiserver::ObjectReader::get(reader.as_ref(), "", "services", "default", "kubernetes").is_some();
        if there {
            return api.mark_bootstrapped();
        }
        tokio::select! {
            _ = status.changed() => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// The work of one leadership.
async fn lead(parts: Parts, sealed: Option<trireme_proto::store::SealedKey>, fence: trireme_raft::Fence, stop: CancellationToken) {
    let revision = parts.store.revision();
    let client_fence = Fence { term: fence.term, node_id: fence.node_id };
    let bootstrap = startup::bootstrap_cluster(&parts, sealed, fence, stop.clone());
    let (controllers, scheduler) = (parts.controllers.clone(), parts.scheduler.clone());
    let schedule = async {
        if let Some(scheduler) = &scheduler {
            scheduler.lead(client_fence, revision, stop.clone()).await;
        }
    };
    tokio::join!(
        bootstrap,
        controllers.lead(client_fence, revision, stop.clone()),
        schedule,
        keep_endpoints(&parts, fence, stop.clone()),
        token_files::clean_up(&parts.tokens, stop.clone()),
        repair::run(parts.api.storage().clone(), fence, stop.clone()),
        manifests(&parts, fence, stop.clone()),
    );
}

/// Applies the folder of manifests, once the objects that every cluster has are there.
async fn manifests(parts: &Parts, fence: trireme_raft::Fence, stop: CancellationToken) {
    while !parts.api.is_bootstrapped() {
        tokio::select! {
            () = tokio::time::sleep(ENDPOINTS_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
    let folder = parts.server_dir.join("manifests");
    manifests::Manifests::new(folder, parts.api.clone(), fence, parts.name.clone()).run(stop).await;
}

/// The `kubernetes` Service names the servers that live.
async fn keep_endpoints(parts: &Parts, fence: trireme_raft::Fence, stop: CancellationToken) {
    let writer = startup::writer(parts, fence);
    let mut period = tokio::time::interval(ENDPOINTS_INTERVAL);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut written: Vec<IpAddr> = Vec::new();
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        let alive = parts.store.alive(ALIVE_WITHIN);
        let members = parts.store.members().await;
        let addresses: Vec<IpAddr> = members
            .iter()
            .filter(|m| alive.contains(&m.id))
            .flat_map(|m| m.addresses.iter().flat_map(|a| &a.api))
            .filter_map(|url| ip_of(url))
            .collect();
        if addresses == written || addresses.is_empty() {
            continue;
        }
        let reader = parts.api.storage().clone();
        match trireme_cluster::bootstrap::reconcile_endpoints(&writer, reader.as_ref(), &addresses, parts.https_port).await {
            Ok(()) => written = addresses,
            Err(error) => tracing::debug!(%error, "endpoints of the kubernetes Service not written yet"),
        }
    }
}

fn ip_of(url: &str) -> Option<IpAddr> {
    url.strip_prefix("https://")?.parse::<SocketAddr>().ok().map(|a| a.ip())
}
