//! The wiring: from options to a running node.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    core::v1::{Node, Service},
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
use trireme_cni::{Backend, gate::Gate, network as pod_network};
use trireme_images::ImagesOptions;
use trireme_kubelet::{Kubelet, KubeletOptions};
use trireme_nft::firewall::Openings;
use trireme_proxy::{Proxier, ProxyOptions, health, health_ports, host_ports, metrics as proxy_metrics, ruleset};

use crate::{
    certificates::Certificates,
    check,
    cluster_dns::{self, ClusterDns},
    error::Error,
    host,
    host_ports::MappedPorts,
    identity::{self, Identity, IdentityStore},
    join::{JoinClient, JoinToken},
    journal::{HostObject, Journal},
    kept_images::ImportedImages,
    lock::FolderLock,
    network,
    options::AgentOptions,
    policy, servers, tunnels,
};

/// Image tarballs, below the agent's folder.
const IMAGES: &str = "images";
/// Which host ports are mapped, below the agent's folder.
const HOST_PORTS: &str = "host-ports.json";
/// How long the first start waits for the container runtime, which may be starting beside us.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);
const RUNTIME_LOOK: Duration = Duration::from_millis(200);
/// How long pods may take to end when the host shuts down. Less than systemd waits for a unit to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(35);
/// How long the other parts of the node may take to stop.
const PARTS_GRACE: Duration = Duration::from_secs(2);

/// Runs the node until cancelled; says `serving` once it has joined and its kubelet serves. Returns early only with an error that a restart would not mend.
pub async fn run(options: AgentOptions, serving: impl FnOnce(), cancel: CancellationToken) -> Result<(), Error> {
    let agent_dir = options.data_dir.join("agent");
    // Held until the node ends: another agent would replace everything below while this one uses it.
    let _lock = FolderLock::take(&agent_dir)?;
    let mut journal =
        Journal::open(&agent_dir).map_err(|e| Error::Host(format!("--data-dir: {}: {e}", agent_dir.join("journal").display())))?;
    check::before_start()?;
    if let Some(root) = &options.kubelet.root_dir {
        journal.note(HostObject::KubeletRoot(root.clone()))?;
    }
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
    let backend = backend(&identity)?;
    host::kernel::prepare(&mut journal, backend.is_some(), backend == Some(Backend::Vxlan))?;

    // If the host shuts down, the kubelet ends its pods before the other parts of the node stop: hooks need the network, and the runtime asks
    // the network plugin for each pod that ends.
    let stop = CancellationToken::new();
    let _stopped_in_any_case = stop.clone().drop_guard();
    let nodes = Informer::<Node>::start(client.clone(), InformerOptions::default(), stop.clone());
    let services = Informer::<Service>::start(client.clone(), InformerOptions::default(), stop.clone());
    let slices = Informer::<EndpointSlice>::start(client.clone(), InformerOptions::default(), stop.clone());
    let mut parts = JoinSet::new();
    let imported = start_images(&mut parts, &options, &agent_dir, &stop);
    let (checked, unchecked) = (transport.clone(), stop.clone());
    parts.spawn(async move { checked.check_health(unchecked).await });
    let mut node_ips = vec![node_ip];
    node_ips.extend(options.node_external_ip);
    let certificates = Certificates::new(identity.clone(), store, transport.clone(), node_ips)?;
    parts.spawn(certificates.clone().run(stop.clone()));
    let (told, listed) = watch::channel(identity.servers.clone());
    parts.spawn(servers::follow(slices.clone(), transport.clone(), certificates.clone(), told, stop.clone()));
    parts.spawn(tunnels::run(nodes.clone(), node_name.clone(), node_ip, transport, listed, stop.clone()));
    let facts = NetworkFacts::new(&identity, node_ip)?;
    let watched = Watched { nodes, services, slices };
    if identity.cluster.kube_proxy {
        start_proxy(&mut parts, &mut journal, &options, &node_name, &facts, &watched, &stop)?;
    }
    let ports = start_host_ports(&mut parts, &mut journal, &agent_dir, &stop)?;
    let gate = match backend.is_some() && identity.cluster.network_policy {
        true => Some(policy::start(&mut parts, &mut journal, client.clone(), &node_name, &stop)?),
        false => None,
    };
    let own = backend.map(|backend| OwnNetwork { backend, gate });
    tokio::select! {
        started = start_network(&mut parts, &mut journal, &agent_dir, &node_name, own, &facts, &watched, &stop) => started?,
        () = cancel.cancelled() => return Ok(()),
    }
    let plan = check::Plan {
        server: false,
        node: true,
        data_dir: options.data_dir.clone(),
        runtime_endpoint: options.runtime_endpoint.clone(),
        own_network: backend.is_some(),
    };
    parts.spawn(check::warn_of_runtime(plan));
    let mut kubelet = kubelet_options(&options, &identity, client, node_name, node_ip, &agent_dir, certificates);
    kubelet.requests = Some(requests);
    kubelet.services = Some(watched.services);
    kubelet.host_ports = Arc::new(MappedPorts(ports));
    kubelet.kept_images = Arc::new(ImportedImages(options.runtime_endpoint.clone()));
    options.kubelet.apply(&mut kubelet);
    kubelet.images_imported = Some(imported);
    let kubelet = Kubelet::start(kubelet, CancellationToken::new()).await?;
    serving();
    cancel.cancelled().await;
    kubelet.shutdown_with_host(SHUTDOWN_GRACE).await;
    stop.cancel();
    let ended = async { while parts.join_next().await.is_some() {} };
    // What has not ended by then is ended.
    let _ = tokio::time::timeout(PARTS_GRACE, ended).await;
    parts.shutdown().await;
    Ok(())
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
        // Fresh, or valid for long enough to be renewed with itself once the node runs.
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

/// A node that has not joined yet ends with an error when the runtime is not there. A node that has joined waits for as long as it takes:
/// its runtime may be restarting.
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

/// The returned receiver turns true when the tarballs that lay there at the start are imported, or when the import has to wait for the
/// runtime.
fn start_images(parts: &mut JoinSet<()>, options: &AgentOptions, agent_dir: &Path, cancel: &CancellationToken) -> watch::Receiver<bool> {
    let (done, first_pass) = oneshot::channel();
    let (told, imported) = watch::channel(false);
    let images = ImagesOptions { folder: agent_dir.join(IMAGES), runtime_endpoint: options.runtime_endpoint.clone() };
    parts.spawn(trireme_images::run(images, done, cancel.clone()));
    parts.spawn(async move {
        // Also where nothing can be imported: then there is nothing to wait for.
        drop(first_pass.await);
        told.send_replace(true);
    });
    imported
}

/// What the node's parts follow together.
struct Watched {
    nodes: Arc<Informer<Node>>,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
}

/// The cluster's networks, and this node in them.
struct NetworkFacts {
    node_ip: Ipv4Addr,
    dns_ip: Ipv4Addr,
    domain: String,
    pods: Ipv4Net,
    services: Ipv4Net,
}

impl NetworkFacts {
    fn new(identity: &Identity, node_ip: IpAddr) -> Result<Self, Error> {
        let facts = &identity.cluster;
        let network = |text: &str, what| text.parse().map_err(|_| Error::Option(format!("the {what} CIDR {text} is no IPv4 network")));
        Ok(Self {
            node_ip: as_ipv4(node_ip, "node address")?,
            dns_ip: as_ipv4(facts.cluster_dns, "cluster DNS address")?,
            domain: facts.cluster_domain.clone(),
            pods: network(&facts.cluster_cidr, "cluster")?,
            services: network(&facts.service_cidr, "service")?,
        })
    }
}

/// The node's own pod network.
struct OwnNetwork {
    backend: Backend,
    /// What pods pass before they are on it.
    gate: Option<Arc<dyn Gate>>,
}

/// The node's own pod network, unless another is installed.
fn backend(identity: &Identity) -> Result<Option<Backend>, Error> {
    match identity.cluster.flannel_backend.as_str() {
        "vxlan" => Ok(Some(Backend::Vxlan)),
        "host-gw" => Ok(Some(Backend::HostGw)),
        "none" => Ok(None),
        other => Err(Error::Option(format!("the cluster's flannel backend is {other}: this version knows vxlan, host-gw and none"))),
    }
}

fn start_proxy(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    options: &AgentOptions,
    node_name: &str,
    facts: &NetworkFacts,
    watched: &Watched,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    journal.note(HostObject::NftTable(ruleset::TABLE.into()))?;
    let proxy = ProxyOptions {
        node_name: node_name.to_owned(),
        cluster_cidr: facts.pods,
        service_cidr: Some(facts.services),
        node_port_networks: options.proxy.node_port_networks.clone(),
        translated: options.node_external_ip.and_then(|ip| as_ipv4(ip, "external address").ok()).map(|external| (external, facts.node_ip)),
    };
    let proxier = Proxier::new(proxy, watched.services.clone(), watched.slices.clone(), watched.nodes.clone());
    let metrics = proxier.metrics().clone();
    let (healthy, counted, stop, address) = (proxier.health(), metrics.clone(), cancel.clone(), options.proxy.health);
    parts.spawn(async move {
        if let Err(error) = health::serve(address, healthy, counted, stop).await {
            tracing::warn!(%error, %address, "proxy health is not served");
        }
    });
    let (services, slices, name, stop) = (watched.services.clone(), watched.slices.clone(), node_name.to_owned(), cancel.clone());
    parts.spawn(health_ports::run(services, slices, name, proxier.health(), stop));
    let stop = cancel.clone();
    parts.spawn(async move {
        if let Err(error) = proxier.run(stop).await {
            tracing::error!(%error, "Services are not served on this node");
        }
    });
    parts.spawn(serve_proxy_metrics(options.proxy.metrics, metrics, cancel.clone()));
    Ok(())
}

fn start_host_ports(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    agent_dir: &Path,
    cancel: &CancellationToken,
) -> Result<Arc<host_ports::HostPorts>, Error> {
    journal.note(HostObject::NftTable(host_ports::TABLE.into()))?;
    let ports = Arc::new(host_ports::HostPorts::open(pod_network::BRIDGE, &agent_dir.join(HOST_PORTS))?);
    let (running, stop) = (ports.clone(), cancel.clone());
    parts.spawn(async move {
        if let Err(error) = running.run(stop).await {
            tracing::error!(%error, "host ports are not put back when somebody else removes them");
        }
    });
    Ok(ports)
}

async fn start_network(
    parts: &mut JoinSet<()>,
    journal: &mut Journal,
    agent_dir: &Path,
    node_name: &str,
    own: Option<OwnNetwork>,
    facts: &NetworkFacts,
    watched: &Watched,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    if let Some(OwnNetwork { backend, gate }) = own {
        let owns_links = journal.knows(&HostObject::Link(pod_network::BRIDGE.into()));
        let options = network::options(agent_dir, node_name.to_owned(), facts.node_ip, backend, owns_links);
        network::start(parts, journal, agent_dir, options, gate, &watched.nodes, cancel).await?;
        journal.note(HostObject::FirewallRules)?;
        parts.spawn(network::keep_firewall_open(Openings { pods: facts.pods, dns: vec![facts.dns_ip] }, cancel.clone()));
    }
    network::add_service_route(journal, facts.services, facts.node_ip).await?;
    journal.note(HostObject::Address(cluster_dns::LINK.into(), Ipv4Net::from(facts.dns_ip).to_string()))?;
    parts.spawn(ClusterDns::new(facts.dns_ip, &facts.domain, &watched.services, &watched.slices)?.run(cancel.clone()));
    Ok(())
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
    let cni = agent_dir.join("cni");
    kubelet.network_hint = Some(format!(
        "the runtime must look for CNI configuration in {} and for plugins in {} (conf_dir and bin_dir of containerd's CRI plugin)",
        cni.join("net.d").display(),
        cni.join("bin").display()
    ));
    kubelet
}
