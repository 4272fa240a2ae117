//! The wiring: from options to a running node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Node, Service, Taint},
    discovery::v1::EndpointSlice,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use trireme_client::metrics::{CountedTransport, Registry};
use trireme_client::{Client, Credentials, HttpsOptions, HttpsTransport, Informer, InformerOptions};
use trireme_cni::{Backend, Network, network};
use trireme_dns::{Cluster, DnsOptions, forward::Forwarder};
use trireme_images::ImagesOptions;
use trireme_kubelet::{Kubelet, KubeletOptions};
use trireme_proxy::{Proxier, ProxyOptions, health, metrics as proxy_metrics, ruleset};

use crate::{
    CNI_SOCKET, Error,
    certificates::Certificates,
    cleanup, host,
    identity::{self, Identity, IdentityStore},
    join::{JoinClient, JoinToken},
    journal::{HostObject, Journal},
    lock::FolderLock,
    network_options, servers,
};

/// Image tarballs, below the agent's folder.
const IMAGES: &str = "images";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PROXY_HEALTH_PORT: u16 = 10256;
/// How long the first start waits for the container runtime, which may be starting beside us.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);
const RUNTIME_LOOK: Duration = Duration::from_millis(200);

/// What a node is told at start.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// A server to join at, `https://host:port`; not needed once joined.
    pub server: Option<String>,
    /// The join token; not needed once joined.
    pub token: Option<String>,
    /// All state is below it.
    pub data_dir: PathBuf,
    /// The node's name; the host's if not given.
    pub node_name: Option<String>,
    /// The node's address; the one with the default route if not given.
    pub node_ip: Option<IpAddr>,
    /// Address under which it is known outside.
    pub node_external_ip: Option<IpAddr>,
    /// Labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node when it is first registered.
    pub taints: Vec<Taint>,
    /// Socket of the container runtime.
    pub runtime_endpoint: PathBuf,
    /// Cgroup below which pods live.
    pub cgroup_root: String,
    /// The version that the Node reports.
    pub version: String,
    /// Where the proxy's metrics are served, to everybody who reaches it.
    pub proxy_metrics: SocketAddr,
    /// Whether this process is nothing but the node: then its kubelet shows the process's numbers too.
    pub own_process: bool,
}

/// kube-proxy's port, on loopback.
pub const PROXY_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// Runs the node until cancelled; says `serving` once it has joined and its kubelet serves. Returns early only with an error that a restart would not mend.
pub async fn run(options: AgentOptions, serving: impl FnOnce(), cancel: CancellationToken) -> Result<(), Error> {
    let agent_dir = options.data_dir.join("agent");
    // Held to the end: everything below would be replaced under the feet of another agent.
    let _lock = FolderLock::take(&agent_dir)?;
    let mut journal =
        Journal::open(&agent_dir).map_err(|e| Error::Host(format!("--data-dir: {}: {e}", agent_dir.join("journal").display())))?;
    check_programs()?;
    let node_name = options.node_name.clone().map_or_else(host::node_name, Ok)?;
    let node_ip = options.node_ip.map_or_else(host::node_ip, Ok)?;
    let store = IdentityStore::new(&agent_dir);
    let identity = tokio::select! {
        identity = identity_of(&options, &store, &node_name, node_ip) => identity?,
        () = cancel.cancelled() => return Ok(()),
    };
    let transport = HttpsTransport::new(HttpsOptions {
        servers: identity.servers.clone(),
        ca_pem: identity.server_ca_pem.clone(),
        credentials: Credentials::Certificate {
            cert_pem: identity.client.certificate_pem.clone(),
            key_pem: identity.client.key_pem.clone(),
        },
    })?;
    let requests = Registry::new();
    let asked = transport.clone();
    let counted = CountedTransport::new(Arc::new(transport.clone()), &requests, move || host_of(&asked));
    let client = Client::new(Arc::new(counted)).with_user_agent(&format!("trireme-agent/{}", options.version));
    host::prepare_kernel(&mut journal)?;

    let nodes = Informer::<Node>::start(client.clone(), InformerOptions::default(), cancel.clone());
    let services = Informer::<Service>::start(client.clone(), InformerOptions::default(), cancel.clone());
    let slices = Informer::<EndpointSlice>::start(client.clone(), InformerOptions::default(), cancel.clone());
    let mut parts = JoinSet::new();
    let imported = start_images(&mut parts, &options, &agent_dir, &cancel);
    let (checked, stop) = (transport.clone(), cancel.clone());
    parts.spawn(async move { checked.check_health(stop).await });
    let mut node_ips = vec![node_ip];
    node_ips.extend(options.node_external_ip);
    let certificates = Certificates::new(identity.clone(), store, transport.clone(), node_ips)?;
    parts.spawn(certificates.clone().run(cancel.clone()));
    parts.spawn(servers::follow(slices.clone(), transport, certificates.clone(), cancel.clone()));
    let dns_ip = as_ipv4(identity.cluster.cluster_dns, "cluster DNS address")?;
    let proxy = start_proxy(&mut parts, &mut journal, &node_name, &identity, dns_ip, &services, &slices, &cancel)?;
    parts.spawn(serve_proxy_metrics(options.proxy_metrics, proxy, cancel.clone()));
    let backend = match identity.cluster.flannel_backend.as_str() {
        "host-gw" => Some(Backend::HostGw),
        "none" => None,
        _ => Some(Backend::Vxlan),
    };
    if let Some(backend) = backend {
        let node_ip = as_ipv4(node_ip, "node address")?;
        let network = start_network(&mut parts, &mut journal, &agent_dir, &node_name, node_ip, backend, dns_ip, &nodes, &cancel).await?;
        start_dns(&mut parts, network, &identity, dns_ip, &services, &slices, &cancel);
    }
    let mut kubelet = kubelet_options(&options, &identity, client, node_name, node_ip, &agent_dir, certificates);
    kubelet.requests = Some(requests);
    kubelet.services = Some(services);
    kubelet.images_imported = Some(imported);
    let kubelet = Kubelet::start(kubelet, cancel.clone()).await?;
    serving();
    cancel.cancelled().await;
    drop(kubelet);
    parts.shutdown().await;
    Ok(())
}

fn check_programs() -> Result<(), Error> {
    if cleanup::program_exists("nft") {
        return Ok(());
    }
    Err(Error::Host("nft is not installed: apt-get install nftables".into()))
}

fn as_ipv4(address: IpAddr, what: &str) -> Result<Ipv4Addr, Error> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => Err(Error::Option(format!("{what} {v6}: only IPv4 is supported so far"))),
    }
}

async fn identity_of(options: &AgentOptions, store: &IdentityStore, node_name: &str, node_ip: IpAddr) -> Result<Identity, Error> {
    let token = options.token.as_deref().map(JoinToken::parse).transpose()?;
    if let Some(identity) = store.load(node_name) {
        if token.as_ref().is_some_and(|t| !t.pins(&identity.server_ca_pem)) {
            return Err(Error::Option(format!(
                "--data-dir {}: this node belongs to another cluster than the one that --token names; clean it up first, or give another directory",
                options.data_dir.display()
            )));
        }
        // Fresh, or good for long enough to be renewed with itself once the node runs.
        if is_fresh(&identity.client.certificate_pem) || (token.is_none() && is_good(&identity.client.certificate_pem)) {
            return Ok(identity);
        }
    }
    let (Some(server), Some(token)) = (&options.server, token) else {
        return Err(Error::Option("this node has not joined a cluster yet: give --server and --token".into()));
    };
    wait_for_runtime(&options.runtime_endpoint).await?;
    let client = JoinClient::connect_patiently(server, token).await?;
    let mut ips = vec![node_ip];
    ips.extend(options.node_external_ip);
    let mut identity = identity::join(&client, store, node_name, &ips).await?;
    if !identity.servers.contains(server) {
        identity.servers.push(server.clone());
    }
    store.save(&identity)?;
    tracing::info!(node_name, "joined the cluster");
    Ok(identity)
}

/// What a server's own node needs, asked for before the server founds a cluster.
pub async fn check_first_start(data_dir: &Path, runtime_endpoint: &Path) -> Result<(), Error> {
    if IdentityStore::new(&data_dir.join("agent")).exists() { Ok(()) } else { wait_for_runtime(runtime_endpoint).await }
}

/// A node that never ran is told of a runtime that is not there. One that has joined waits for as long as it takes: its runtime
/// may be restarting.
async fn wait_for_runtime(endpoint: &Path) -> Result<(), Error> {
    let end = tokio::time::Instant::now() + RUNTIME_PATIENCE;
    loop {
        match tokio::net::UnixStream::connect(endpoint).await {
            Ok(_) => return Ok(()),
            Err(e) if tokio::time::Instant::now() >= end => {
                return Err(Error::Host(format!(
                    "--container-runtime-endpoint {}: no container runtime answers there: {e}; start containerd, or name its socket",
                    endpoint.display()
                )));
            }
            Err(_) => tokio::time::sleep(RUNTIME_LOOK).await,
        }
    }
}

/// Whether a certificate is valid now.
fn is_good(pem: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    x509_parser::parse_x509_certificate(&der).is_ok_and(|(_, certificate)| certificate.validity().is_valid())
}

/// Whether a certificate is valid for a good while yet (a third of its life, as kubelet rotates).
fn is_fresh(pem: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let validity = certificate.validity();
    let life = validity.not_after.timestamp() - validity.not_before.timestamp();
    validity.time_to_expiration().is_some_and(|left| left.whole_seconds() > life / 3)
}

/// What is returned turns true when everything is in the runtime that lay there before, or when that has to wait for the runtime.
fn start_images(parts: &mut JoinSet<()>, options: &AgentOptions, agent_dir: &Path, cancel: &CancellationToken) -> watch::Receiver<bool> {
    let (done, first_pass) = oneshot::channel();
    let (told, imported) = watch::channel(false);
    let images = ImagesOptions { folder: agent_dir.join(IMAGES), runtime_endpoint: options.runtime_endpoint.clone() };
    parts.spawn(trireme_images::run(images, done, cancel.clone()));
    parts.spawn(async move {
        // Also where nothing can be imported: then nothing is worth waiting for.
        drop(first_pass.await);
        told.send_replace(true);
    });
    imported
}

#[allow(clippy::too_many_arguments)] // a wiring function: every part of the node meets here once
fn start_proxy(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    node_name: &str,
    identity: &Identity,
    dns_ip: Ipv4Addr,
    services: &Arc<Informer<Service>>,
    slices: &Arc<Informer<EndpointSlice>>,
    cancel: &CancellationToken,
) -> Result<proxy_metrics::Metrics, Error> {
    record(journal, HostObject::NftTable(ruleset::TABLE.into()))?;
    let cluster_cidr = identity.cluster.cluster_cidr.parse().map_err(|_| Error::Option("the cluster CIDR is no IPv4 network".into()))?;
    let options = ProxyOptions { node_name: node_name.to_owned(), cluster_cidr, answered_here: vec![dns_ip] };
    let proxier = Proxier::new(options, services.clone(), slices.clone());
    let metrics = proxier.metrics().clone();
    let (healthy, counted, stop) = (proxier.health(), metrics.clone(), cancel.clone());
    parts.spawn(async move {
        if let Err(error) = health::serve(SocketAddr::from(([0, 0, 0, 0], PROXY_HEALTH_PORT)), healthy, counted, stop).await {
            tracing::warn!(%error, port = PROXY_HEALTH_PORT, "proxy health is not served");
        }
    });
    let stop = cancel.clone();
    parts.spawn(async move { proxier.run(stop).await });
    Ok(metrics)
}

async fn serve_proxy_metrics(address: SocketAddr, metrics: proxy_metrics::Metrics, cancel: CancellationToken) {
    if let Err(error) = proxy_metrics::serve(address, metrics, cancel).await {
        tracing::warn!(%error, %address, "proxy metrics are not served");
    }
}

/// The server that requests go to now.
fn host_of(transport: &HttpsTransport) -> String {
    transport.current_server().unwrap_or_default().trim_start_matches("https://").trim_end_matches('/').to_owned()
}

#[allow(clippy::too_many_arguments)] // a wiring function: every part of the node meets here once
async fn start_network(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    agent_dir: &Path,
    node_name: &str,
    node_ip: Ipv4Addr,
    backend: Backend,
    dns_ip: Ipv4Addr,
    nodes: &Arc<Informer<Node>>,
    cancel: &CancellationToken,
) -> Result<Network, Error> {
    let owns_links = journal.knows(&HostObject::Link(network::BRIDGE.into()));
    let options = network_options(agent_dir, node_name.to_owned(), node_ip, backend, vec![dns_ip], owns_links);
    let network = Network::new(options).await?;
    for link in [network::BRIDGE, network::TUNNEL] {
        record(journal, HostObject::Link(link.into()))?;
    }
    let socket = agent_dir.join(CNI_SOCKET);
    let listener = trireme_cni::server::bind(&socket)?;
    parts.spawn(trireme_cni::server::serve(listener, network.clone(), cancel.clone()));
    let (running, nodes, stop) = (network.clone(), nodes.clone(), cancel.clone());
    parts.spawn(async move { running.run(nodes, stop).await });
    let binary = std::env::current_exe().map_err(|e| Error::Host(format!("own binary: {e}")))?;
    let (ready, cni_dir) = (network.clone(), agent_dir.join("cni"));
    parts.spawn(async move {
        // The runtime reports its network ready when it sees the configuration: not before it is.
        ready.wait_ready().await;
        if let Err(error) = trireme_cni::plugin::install(&cni_dir.join("net.d"), &cni_dir.join("bin"), &socket, &binary) {
            tracing::error!(%error, "CNI configuration not installed: no pod can start");
        }
    });
    Ok(network)
}

fn start_dns(
    parts: &mut JoinSet<()>,
    network: Network,
    identity: &Identity,
    dns_ip: Ipv4Addr,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    cancel: &CancellationToken,
) {
    let cluster = Arc::new(Cluster::default());
    cluster.follow(services, slices);
    let options = DnsOptions {
        address: SocketAddr::from((dns_ip, 53)),
        domain: identity.cluster.cluster_domain.clone(),
        forwarder: Forwarder::from_resolv_conf(Path::new(RESOLV_CONF), &[dns_ip.into()]),
    };
    let cancel = cancel.clone();
    parts.spawn(async move {
        network.wait_ready().await;
        if let Err(error) = trireme_dns::serve(options, cluster, cancel).await {
            tracing::error!(%error, "cluster DNS does not answer on this node");
        }
    });
}

fn kubelet_options(
    options: &AgentOptions,
    identity: &Identity,
    client: Client,
    node_name: String,
    node_ip: IpAddr,
    agent_dir: &Path,
    certificates: Arc<Certificates>,
) -> KubeletOptions {
    let mut kubelet = KubeletOptions::new(node_name, node_ip, agent_dir, client);
    kubelet.node_external_ips = options.node_external_ip.into_iter().collect();
    kubelet.runtime_endpoint = options.runtime_endpoint.display().to_string();
    kubelet.cgroup_root = options.cgroup_root.clone();
    kubelet.pod_logs_dir = agent_dir.join("logs");
    kubelet.cluster_dns = vec![identity.cluster.cluster_dns];
    kubelet.cluster_domain = identity.cluster.cluster_domain.clone();
    kubelet.labels = options.labels.clone();
    kubelet.taints = options.taints.clone();
    kubelet.version = options.version.clone();
    kubelet.stands_for_process = options.own_process;
    kubelet.serving_tls = Some(trireme_kubelet::ServingTls {
        certificate: certificates.serving(),
        client_ca_pem: identity.client_ca_pem.clone().into_bytes(),
    });
    kubelet.certificates = Some(certificates);
    kubelet
}

fn record(journal: &mut Journal, object: HostObject) -> Result<(), Error> {
    journal.record(object).map_err(|e| Error::Host(format!("journal: {e}")))
}
