//! What a kubelet is told when it starts. The agent builds this from flags, the join answer and the node's certificates.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Service, Taint};
use tokio::sync::watch;
use trireme_client::{Client, Informer};

use crate::{
    host_ports::{HostPorts, NoHostPorts},
    image::{
        inventory::ImagePolicy,
        kept::{KeptImages, NoKeptImages},
    },
    node::thresholds::{EvictionThresholds, SoftThresholds},
    pod::sysctls,
};

/// Shows and renews the certificates of this node; the kubelet only lends its port.
pub trait NodeCertificates: Send + Sync {
    /// The certificates, as a JSON document.
    fn show(&self) -> Result<serde_json::Value, String>;
    /// Renews all of them now, and returns the new ones.
    fn rotate(&self) -> futures::future::BoxFuture<'_, Result<serde_json::Value, String>>;
}

/// Everything a [`crate::Kubelet`] needs to know. [`KubeletOptions::new`] fills in upstream's defaults.
#[derive(Clone)]
pub struct KubeletOptions {
    /// The Node's name, as in the client certificate `system:node:<name>`.
    pub node_name: String,
    /// Addresses of type InternalIP, the primary first.
    pub node_ips: Vec<IpAddr>,
    /// Addresses of type ExternalIP.
    pub node_external_ips: Vec<IpAddr>,
    /// Our own directory (`<data-dir>/agent`): pods' volumes live in `pods/<uid>` below it.
    pub data_dir: PathBuf,
    /// The folders of this node's local volumes: `<data-dir>/storage`. The Node tells of it.
    pub local_volumes_dir: PathBuf,
    /// The folder of manifests of static pods.
    pub static_pods_dir: PathBuf,
    /// Where container logs are written by the runtime; upstream's `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// The CRI socket, `unix:///run/containerd/containerd.sock` or a bare path.
    pub runtime_endpoint: String,
    /// Absolute cgroup path under which `kubepods` is made, for example `/trireme` or `/`.
    pub cgroup_root: String,
    /// Nameservers that pods with dnsPolicy ClusterFirst get.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain, `cluster.local`.
    pub cluster_domain: String,
    /// The resolver file that dnsPolicy Default copies from.
    pub resolv_conf: PathBuf,
    /// Labels set on the Node at registration, beside the ones every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints set on the Node when it is created (never on an existing Node).
    pub taints: Vec<Taint>,
    /// The provider id, if some cloud integration wants one.
    pub provider_id: Option<String>,
    /// A client that speaks as this node.
    pub client: Client,
    /// The cluster's Services, of which containers are told, where the node follows them anyway. Without it the kubelet does.
    pub services: Option<Arc<Informer<Service>>>,
    /// Turns true when the image tarballs that lay on this node at its start are in the runtime. Until then a new pod that lacks an
    /// image waits; whatever runs, and whatever has all its images, does not.
    pub images_imported: Option<watch::Receiver<bool>>,
    /// The TLS identity of the kubelet API. Without it the API on 10250 is not served.
    pub serving_tls: Option<ServingTls>,
    /// What shows and renews this node's certificates. Without it the API does not serve them.
    pub certificates: Option<Arc<dyn NodeCertificates>>,
    /// Where the kubelet API listens (10250).
    pub listen: SocketAddr,
    /// Where plain health is served (10248, loopback). None switches it off.
    pub healthz_listen: Option<SocketAddr>,
    /// The version in the Node's nodeInfo, `v1.36.2+trireme1`.
    pub version: String,
    /// How many pods this node takes.
    pub max_pods: u32,
    /// Resources kept from pods (`cpu`, `memory`, `ephemeral-storage`), as quantities.
    pub reserved: BTreeMap<String, String>,
    /// When the node is short of memory, disk or process ids.
    pub eviction_hard: EvictionThresholds,
    /// When it has been short for a while.
    pub eviction_soft: SoftThresholds,
    /// When unused images are removed.
    pub image_policy: ImagePolicy,
    /// Images that are never removed, beside those that the runtime says are pinned.
    pub kept_images: Arc<dyn KeptImages>,
    /// Sysctls beyond the safe ones that pods may set, by name or as a prefix and `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Rotate a container's log when it is larger (bytes).
    pub container_log_max_bytes: u64,
    /// How many log files a container may have, the current one included.
    pub container_log_max_files: usize,
    /// Whether the numbers of the whole process are shown among the kubelet's metrics: where nothing else of it shows them.
    pub stands_for_process: bool,
    /// What to do when the runtime says that its network is not ready, for the node's Ready condition.
    pub network_hint: Option<String>,
    /// Maps ports of this host to pods. The default refuses every pod that asks for one.
    pub host_ports: Arc<dyn HostPorts>,
    /// Further metrics to show: those of the client.
    pub requests: Option<prometheus::Registry>,
}

/// The certificate the kubelet API serves with, and the CA that its callers' certificates must come from.
#[derive(Clone)]
pub struct ServingTls {
    /// Resolves to the current serving certificate; a rotating resolver may change its answer at any time.
    pub certificate: Arc<dyn rustls::server::ResolvesServerCert>,
    /// PEM of the CA that signs client certificates (the API server's kubelet client certificate among them).
    pub client_ca_pem: Vec<u8>,
}

impl KubeletOptions {
    /// Options with upstream's defaults for all that a node seldom changes.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr, data_dir: impl Into<PathBuf>, client: Client) -> KubeletOptions {
        let data_dir: PathBuf = data_dir.into();
        KubeletOptions {
            local_volumes_dir: data_dir.parent().unwrap_or(&data_dir).join("storage"),
            node_name: node_name.into(),
            node_ips: vec![node_ip],
            node_external_ips: Vec::new(),
            static_pods_dir: data_dir.join("pod-manifests"),
            data_dir,
            pod_logs_dir: "/var/log/pods".into(),
            runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            cgroup_root: "/".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
            client,
            services: None,
            images_imported: None,
            serving_tls: None,
            certificates: None,
            listen: SocketAddr::from(([0, 0, 0, 0], 10250)),
            healthz_listen: Some(SocketAddr::from(([127, 0, 0, 1], 10248))),
            version: "v1.36.2+trireme1".into(),
            max_pods: 110,
            reserved: BTreeMap::new(),
            eviction_hard: EvictionThresholds::default(),
            eviction_soft: SoftThresholds::default(),
            image_policy: ImagePolicy::default(),
            kept_images: Arc::new(NoKeptImages),
            allowed_unsafe_sysctls: Vec::new(),
            container_log_max_bytes: 10 << 20,
            container_log_max_files: 5,
            stands_for_process: false,
            network_hint: None,
            host_ports: Arc::new(NoHostPorts),
            requests: None,
        }
    }

    /// Lets pods set these sysctls, given as `--allowed-unsafe-sysctls` has it: names or prefixes with `*`, separated by commas.
    ///
    /// # Errors
    /// For what is no sysctl of a namespace: allowing it would let a pod change the host.
    pub fn allow_unsafe_sysctls(&mut self, list: &str) -> Result<(), String> {
        for pattern in list.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            sysctls::check_pattern(pattern)?;
            self.allowed_unsafe_sysctls.push(pattern.to_string());
        }
        Ok(())
    }

    /// The primary node address.
    pub fn node_ip(&self) -> Option<IpAddr> {
        self.node_ips.first().copied()
    }

    /// The socket path behind `runtime_endpoint`.
    pub(crate) fn runtime_socket(&self) -> Result<PathBuf, crate::Error> {
        let path = self.runtime_endpoint.strip_prefix("unix://").unwrap_or(&self.runtime_endpoint);
        if path.starts_with('/') {
            Ok(PathBuf::from(path))
        } else {
            Err(crate::Error::Options(format!(
                "container-runtime-endpoint {:?} is no unix socket: expected unix:///path/to/socket",
                self.runtime_endpoint
            )))
        }
    }

    /// `pods/<uid>` of one pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }
}
