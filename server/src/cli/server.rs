//! `trireme server`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum, builder::PossibleValuesParser};

use trireme_apiserver::ApiServerOptions;
use trireme_apiserver::audit::AuditOptions;
use trireme_apiserver::authn::providers::ProviderOptions;
use trireme_apiserver::egress::TunnelUse;
use trireme_controllers::ControllerOptions;
use trireme_scheduler::SchedulerOptions;

use crate::snapshots::Schedule;

use super::{
    AgentArgs, CONFIG_FILE, DATA_DIR, audit, oidc,
    upstream::{self, ApiServerArg, ControllerArg, SchedulerArg},
    values::{self, Label, TaintArg},
};

/// Of the hosts.
const SSH_PORT: u16 = 22;
/// Of packets between the pods of different nodes.
const VXLAN_PORT: u16 = 8472;
/// Of the cluster's own components, on servers and nodes.
const COMPONENT_PORTS: std::ops::RangeInclusive<u16> = 10_248..=10_259;

/// How packets reach pods on other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlannelBackend {
    /// Encapsulated in UDP: works over any network
    Vxlan,
    /// Plain routes: the nodes share a layer-2 network
    HostGw,
    /// None: another CNI plugin is installed
    None,
}

/// For what the API server uses the connections that agents open to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EgressSelectorMode {
    /// For nothing: kubelets and pods are reached directly
    Disabled,
    /// For kubelets
    Agent,
    /// For kubelets and pods
    Pod,
    /// As pod
    Cluster,
}

/// Options of a server.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Start a cluster that other servers may join
    #[arg(long, env = "TRIREME_CLUSTER_INIT", help_heading = "Cluster")]
    pub cluster_init: bool,
    /// Join the cluster of this server
    #[arg(long, env = "TRIREME_SERVER", value_name = "URL", value_parser = values::server_url, help_heading = "Cluster")]
    pub server: Option<String>,
    /// Secret shared by the servers; made up at the first start if not given
    #[arg(long, env = "TRIREME_TOKEN", value_name = "TOKEN", hide_env_values = true, help_heading = "Cluster")]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, env = "TRIREME_TOKEN_FILE", value_name = "FILE", conflicts_with = "token", help_heading = "Cluster")]
    pub token_file: Option<PathBuf>,
    /// Folder for all state
    #[arg(long, short = 'd', env = "TRIREME_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Configuration file (YAML; keys are the flags' names)
    #[arg(long, short = 'c', env = "TRIREME_CONFIG_FILE", value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
    /// When to save a snapshot by itself, as in a crontab
    #[arg(
        long,
        alias = "etcd-snapshot-schedule-cron",
        env = "TRIREME_SNAPSHOT_SCHEDULE_CRON",
        value_name = "CRON",
        default_value = "0 */12 * * *",
        help_heading = "Snapshots"
    )]
    pub snapshot_schedule_cron: Schedule,
    /// How many of those are kept
    #[arg(
        long,
        alias = "etcd-snapshot-retention",
        env = "TRIREME_SNAPSHOT_RETENTION",
        value_name = "N",
        default_value_t = 5,
        help_heading = "Snapshots"
    )]
    pub snapshot_retention: usize,
    /// Folder for snapshots [default: DATA-DIR/server/db/snapshots]
    #[arg(long, alias = "etcd-snapshot-dir", env = "TRIREME_SNAPSHOT_DIR", value_name = "DIR", help_heading = "Snapshots")]
    pub snapshot_dir: Option<PathBuf>,
    /// Save none by itself
    #[arg(long, alias = "etcd-disable-snapshots", env = "TRIREME_DISABLE_SNAPSHOTS", help_heading = "Snapshots")]
    pub disable_snapshots: bool,
    /// As `trireme cluster reset --yes`: make this server a cluster of one, and end
    #[arg(long, help_heading = "Snapshots")]
    pub cluster_reset: bool,
    /// With --cluster-reset: as `trireme snapshot restore --force FILE`
    #[arg(long, value_name = "FILE", requires = "cluster_reset", help_heading = "Snapshots")]
    pub cluster_reset_restore_path: Option<PathBuf>,
    /// Name of this server and node [default: the host's name]
    #[arg(long, env = "TRIREME_NODE_NAME", value_name = "NAME", value_parser = values::node_name, help_heading = "Node")]
    pub node_name: Option<String>,
    /// Address of this node [default: the one with the default route]
    #[arg(long, env = "TRIREME_NODE_IP", value_name = "IP", value_parser = values::ip, help_heading = "Node")]
    pub node_ip: Option<IpAddr>,
    /// Address under which the node is known outside
    #[arg(long, env = "TRIREME_NODE_EXTERNAL_IP", value_name = "IP", value_parser = values::ip, help_heading = "Node")]
    pub node_external_ip: Option<IpAddr>,
    /// Label for the node; may be repeated
    #[arg(long, value_name = "K=V", help_heading = "Node")]
    pub node_label: Vec<Label>,
    /// Taint for the node; may be repeated
    #[arg(long, value_name = "K=V:EFFECT", help_heading = "Node")]
    pub node_taint: Vec<TaintArg>,
    /// Address that the API server listens on
    #[arg(long, env = "TRIREME_BIND_ADDRESS", value_name = "IP", value_parser = values::ip, default_value = "0.0.0.0", help_heading = "Listeners")]
    pub bind_address: IpAddr,
    /// Address that others reach the API server at [default: the node's]
    #[arg(long, env = "TRIREME_ADVERTISE_ADDRESS", value_name = "IP", value_parser = values::ip, help_heading = "Listeners")]
    pub advertise_address: Option<IpAddr>,
    /// Port of the API server
    #[arg(long, env = "TRIREME_HTTPS_LISTEN_PORT", value_name = "PORT", value_parser = values::port, default_value_t = 6443, help_heading = "Listeners")]
    pub https_listen_port: u16,
    /// Port that the other servers' store connects to
    #[arg(long, env = "TRIREME_PEER_PORT", value_name = "PORT", value_parser = values::port, default_value_t = 2380, help_heading = "Listeners")]
    pub peer_port: u16,
    /// Milliseconds between two heartbeats of the store's leader
    #[arg(long, env = "TRIREME_RAFT_HEARTBEAT_MS", value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=10_000), default_value_t = 150, hide = true)]
    pub raft_heartbeat_ms: u64,
    /// Milliseconds without a word from the store's leader after which its lease ends; a follower waits up to as long again before it asks for votes
    #[arg(long, env = "TRIREME_RAFT_ELECTION_TIMEOUT_MS", value_name = "MS", value_parser = clap::value_parser!(u64).range(40..=60_000), default_value_t = 600, hide = true)]
    pub raft_election_timeout_ms: u64,
    /// Port of the etcd API, for clients with a certificate of the etcd-client authority
    #[arg(long, env = "TRIREME_ETCD_PORT", value_name = "PORT", value_parser = values::port, default_value_t = 2379, help_heading = "Listeners")]
    pub etcd_port: u16,
    /// Bytes that the store may take on disk; beyond, writes that make it larger are refused until there is room again
    #[arg(
        long,
        env = "TRIREME_QUOTA_BACKEND_BYTES",
        value_name = "BYTES",
        value_parser = values::quota_bytes,
        default_value_t = trireme_raft::Upkeep::default().quota_bytes,
        help_heading = "Components"
    )]
    pub quota_backend_bytes: u64,
    /// Let clients of the etcd API read and write Kubernetes' own keys, too; without this they do not see them
    #[arg(long, env = "TRIREME_ETCD_EXPOSE_KUBERNETES_KEYS", help_heading = "Components")]
    pub etcd_expose_kubernetes_keys: bool,
    /// Further name or address in the API server's certificate; may be repeated
    #[arg(long, env = "TRIREME_TLS_SAN", value_name = "NAME", value_delimiter = ',', help_heading = "Listeners")]
    pub tls_san: Vec<String>,
    /// Addresses of pods
    #[arg(long, env = "TRIREME_CLUSTER_CIDR", value_name = "CIDR", value_parser = values::ipv4_network, default_value = "10.42.0.0/16", help_heading = "Networking")]
    pub cluster_cidr: ipnet::Ipv4Net,
    /// Addresses of services
    #[arg(long, env = "TRIREME_SERVICE_CIDR", value_name = "CIDR", value_parser = values::ipv4_network, default_value = "10.43.0.0/16", help_heading = "Networking")]
    pub service_cidr: ipnet::Ipv4Net,
    /// Address of cluster DNS, in the service CIDR [default: its tenth]
    #[arg(long, env = "TRIREME_CLUSTER_DNS", value_name = "IP", value_parser = values::ipv4, help_heading = "Networking")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// Domain of the cluster's names
    #[arg(long, env = "TRIREME_CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local", help_heading = "Networking")]
    pub cluster_domain: String,
    /// How packets reach pods on other nodes
    #[arg(long, env = "TRIREME_FLANNEL_BACKEND", value_enum, default_value_t = FlannelBackend::Vxlan, help_heading = "Networking")]
    pub flannel_backend: FlannelBackend,
    /// Disable the enforcement of NetworkPolicies, for example where another component enforces them
    #[arg(long, env = "TRIREME_DISABLE_NETWORK_POLICY", help_heading = "Networking")]
    pub disable_network_policy: bool,
    /// Leave Services to another proxy on the nodes, such as kube-proxy or Cilium; cluster DNS goes on. For a new cluster
    #[arg(long, env = "TRIREME_DISABLE_KUBE_PROXY", help_heading = "Networking")]
    pub disable_kube_proxy: bool,
    /// For what agents' tunnels are used [default: pod with --disable-agent, else agent]
    #[arg(
        long,
        env = "TRIREME_EGRESS_SELECTOR_MODE",
        value_name = "MODE",
        value_enum,
        hide_default_value = true,
        help_heading = "Networking"
    )]
    pub egress_selector_mode: Option<EgressSelectorMode>,
    /// Run no node on this server
    #[arg(long, env = "TRIREME_DISABLE_AGENT", help_heading = "Components")]
    pub disable_agent: bool,
    /// Leave the work of kube-controller-manager to another one; its port 10257 stays free
    #[arg(long, env = "TRIREME_DISABLE_CONTROLLER_MANAGER", help_heading = "Components")]
    pub disable_controller_manager: bool,
    /// Leave the placing of pods to another scheduler; its port 10259 stays free
    #[arg(long, env = "TRIREME_DISABLE_SCHEDULER", help_heading = "Components")]
    pub disable_scheduler: bool,
    /// Controller to leave out; may be repeated or separated by commas. `kubectl get --raw /trireme/v1/controllers` shows all
    #[arg(long, env = "TRIREME_DISABLE_CONTROLLER", value_name = "NAME", value_delimiter = ',', value_parser = controller_names(), help_heading = "Components")]
    pub disable_controller: Vec<String>,
    /// Packaged component to leave out; may be repeated or separated by commas
    #[arg(long, env = "TRIREME_DISABLE", value_name = "NAME", value_delimiter = ',', value_parser = ["coredns", "dns", "etcd", "local-storage", "metrics-server", "servicelb"], help_heading = "Components")]
    pub disable: Vec<String>,
    /// Socket of the container runtime
    #[arg(long, env = "TRIREME_CONTAINER_RUNTIME_ENDPOINT", value_name = "SOCKET", value_parser = values::socket_path, default_value = "/run/containerd/containerd.sock", help_heading = "Node")]
    pub container_runtime_endpoint: PathBuf,
    /// Where to write the administrator's kubeconfig
    #[arg(
        long,
        env = "TRIREME_KUBECONFIG_OUTPUT",
        value_name = "FILE",
        default_value = "/etc/trireme/kubeconfig.yaml",
        help_heading = "Client"
    )]
    pub write_kubeconfig: PathBuf,
    /// Mode of that file
    #[arg(long, env = "TRIREME_KUBECONFIG_MODE", value_name = "MODE", value_parser = values::file_mode, default_value = "600", help_heading = "Client")]
    pub write_kubeconfig_mode: u32,
    /// Cgroup below which all pods live
    #[arg(long, env = "TRIREME_CGROUP_ROOT", value_name = "PATH", default_value = "/", help_heading = "Node")]
    pub cgroup_root: String,
    /// What to log: error, warn, info, debug, trace, or a filter such as trireme_raft=debug
    #[arg(long, env = "TRIREME_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    #[command(flatten)]
    pub upstream: UpstreamArgs,
}

/// Flags of upstream's components. A node speaks for its own.
#[derive(Debug, Args, Default)]
pub struct UpstreamArgs {
    /// kube-apiserver flag
    #[arg(long, value_name = "K=V", value_parser = upstream::api_server, help_heading = "Upstream flags")]
    pub kube_apiserver_arg: Vec<ApiServerArg>,
    /// kube-scheduler flag
    #[arg(long, value_name = "K=V", value_parser = upstream::scheduler, help_heading = "Upstream flags")]
    pub kube_scheduler_arg: Vec<SchedulerArg>,
    /// kube-controller-manager flag
    #[arg(long, value_name = "K=V", value_parser = upstream::controllers, help_heading = "Upstream flags")]
    pub kube_controller_manager_arg: Vec<ControllerArg>,
    /// kubelet flag
    #[arg(long, value_name = "K=V", help_heading = "Upstream flags")]
    pub kubelet_arg: Vec<Label>,
    /// kube-proxy flag
    #[arg(long, value_name = "K=V", help_heading = "Upstream flags")]
    pub kube_proxy_arg: Vec<Label>,
}

impl ServerArgs {
    /// For what the API server uses tunnels. A server that is a node has a route to all pods.
    pub fn tunnel_use(&self) -> TunnelUse {
        match self.egress_selector_mode {
            Some(EgressSelectorMode::Disabled) => TunnelUse::Nothing,
            Some(EgressSelectorMode::Agent) => TunnelUse::Kubelets,
            Some(EgressSelectorMode::Pod | EgressSelectorMode::Cluster) => TunnelUse::KubeletsAndPods,
            None if self.disable_agent => TunnelUse::KubeletsAndPods,
            None => TunnelUse::Kubelets,
        }
    }
}

impl UpstreamArgs {
    /// The log filter with what the components' verbosities add: 4 and more is debug, 6 and more trace.
    pub fn log_filter(&self, level: &str) -> String {
        let of = |name: &str, verbosity: Option<u8>| match verbosity {
            Some(0..=3) | None => String::new(),
            Some(4 | 5) => format!(",{name}=debug"),
            Some(_) => format!(",{name}=trace"),
        };
        let api = self.kube_apiserver_arg.iter().rev().find_map(|arg| if let ApiServerArg::Verbosity(v) = arg { Some(*v) } else { None });
        let controllers = self
            .kube_controller_manager_arg
            .iter()
            .rev()
            .find_map(|arg| if let ControllerArg::Verbosity(v) = arg { Some(*v) } else { None });
        let scheduler =
            self.kube_scheduler_arg.iter().rev().find_map(|arg| if let SchedulerArg::Verbosity(v) = arg { Some(*v) } else { None });
        let [api, controllers, scheduler] =
            [of("trireme_apiserver", api), of("trireme_controllers", controllers), of("trireme_scheduler", scheduler)];
        format!("{level}{api}{controllers}{scheduler}")
    }

    /// Carries kube-apiserver's flags out.
    pub fn apply_to_api_server(&self, options: &mut ApiServerOptions) {
        for arg in &self.kube_apiserver_arg {
            match arg {
                ApiServerArg::NodePorts(low, high) => options.ranges.node_ports = (*low, *high),
                ApiServerArg::MaxRequests(most) => options.max_requests_inflight = *most,
                ApiServerArg::MaxMutatingRequests(most) => options.max_mutating_requests_inflight = *most,
                ApiServerArg::PriorityAndFairness(is_on) => options.priority_and_fairness = *is_on,
                ApiServerArg::RequestTimeout(timeout) => options.request_timeout = *timeout,
                ApiServerArg::EnablePlugins(names) => options.admission.enabled.clone_from(names),
                ApiServerArg::DisablePlugins(names) => options.admission.disabled.clone_from(names),
                ApiServerArg::AdmissionConfiguration(path) => options.admission_configuration = Some(path.clone()),
                ApiServerArg::BootstrapTokens(accepted) => options.bootstrap_tokens = *accepted,
                ApiServerArg::NotReadySecs(secs) => options.tolerations.not_ready = *secs,
                ApiServerArg::UnreachableSecs(secs) => options.tolerations.unreachable = *secs,
                // They are put together (see `Self::audit` and `Self::providers`).
                ApiServerArg::Audit(_) | ApiServerArg::Oidc(_) | ApiServerArg::AuthenticationConfig(_) | ApiServerArg::Verbosity(_) => {}
            }
        }
    }

    /// The audit log that kube-apiserver's flags ask for.
    ///
    /// # Errors
    /// Flags that would record nothing.
    pub fn audit(&self) -> Result<Option<AuditOptions>, String> {
        audit::options(self.kube_apiserver_arg.iter().filter_map(|arg| if let ApiServerArg::Audit(arg) = arg { Some(arg) } else { None }))
    }

    /// The identity providers that kube-apiserver's flags name.
    ///
    /// # Errors
    /// Flags that make no provider, or that exclude each other.
    pub fn providers(&self) -> Result<ProviderOptions, String> {
        let args = &self.kube_apiserver_arg;
        let by_flags = oidc::options(args.iter().filter_map(|arg| if let ApiServerArg::Oidc(arg) = arg { Some(arg) } else { None }))?;
        let file = args.iter().rev().find_map(|arg| if let ApiServerArg::AuthenticationConfig(path) = arg { Some(path) } else { None });
        match (by_flags, file) {
            (None, None) => Ok(ProviderOptions::None),
            (Some(options), None) => Ok(ProviderOptions::Flags(Box::new(options.into()))),
            (None, Some(path)) => Ok(ProviderOptions::File(path.clone())),
            (Some(_), Some(_)) => Err("--kube-apiserver-arg authentication-config and oidc-* exclude each other".into()),
        }
    }

    /// Carries kube-controller-manager's flags out.
    fn apply_to_controllers(&self, options: &mut ControllerOptions) -> Result<(), String> {
        for arg in &self.kube_controller_manager_arg {
            match arg {
                ControllerArg::NodeMonitorPeriod(period) => options.node_monitor_period = *period,
                ControllerArg::NodeMonitorGrace(grace) => options.node_monitor_grace = *grace,
                ControllerArg::TerminatedPods(most) => options.terminated_pod_threshold = *most,
                ControllerArg::NodeCidrMask(bits) => options.node_cidr_mask_v4 = *bits,
                ControllerArg::Controllers(list) => options.switches.select(list)?,
                ControllerArg::LeaderElect | ControllerArg::Verbosity(_) => {}
            }
        }
        Ok(())
    }

    /// Carries kube-scheduler's flags out.
    pub fn apply_to_scheduler(&self, options: &mut SchedulerOptions) {
        for arg in &self.kube_scheduler_arg {
            match arg {
                SchedulerArg::UnschedulableFlush(after) => options.unschedulable_flush = *after,
                SchedulerArg::LeaderElect | SchedulerArg::Verbosity(_) => {}
            }
        }
    }
}

/// The controllers that can be left out, for the help text and the check of `--disable-controller`.
fn controller_names() -> PossibleValuesParser {
    PossibleValuesParser::new(trireme_controllers::switchable())
}

impl ServerArgs {
    /// Carries out what the flags say of the controllers.
    ///
    /// # Errors
    /// The name of a controller that is not here.
    pub fn apply_to_controllers(&self, options: &mut ControllerOptions) -> Result<(), String> {
        self.upstream.apply_to_controllers(options)?;
        options.switches.manager_off = self.disable_controller_manager;
        self.disable_controller.iter().try_for_each(|name| options.switches.switch_off(name))
    }

    /// Where this machine reaches the API server: on loopback, unless it listens on one address alone.
    pub fn local_url(&self) -> String {
        let address = if self.bind_address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { self.bind_address };
        format!("https://{}", SocketAddr::from((address, self.https_listen_port)))
    }

    /// Cluster DNS's address: as given, or the tenth of the service CIDR.
    pub fn dns_address(&self) -> Ipv4Addr {
        self.cluster_dns.unwrap_or_else(|| Ipv4Addr::from(u32::from(self.service_cidr.network()) + 10))
    }

    /// Whether a packaged component is to be left out.
    pub fn is_disabled(&self, component: &str) -> bool {
        self.disable.iter().any(|name| name == component)
    }

    /// Whether the nodes answer cluster DNS.
    pub fn nodes_answer_dns(&self) -> bool {
        !self.is_disabled("coredns") && !self.is_disabled("dns")
    }

    /// Whether the cluster has a class of local volumes.
    pub fn has_local_storage(&self) -> bool {
        !self.is_disabled("local-storage")
    }

    /// Whether the server itself says what nodes and pods use.
    pub fn has_resource_metrics(&self) -> bool {
        !self.is_disabled("metrics-server")
    }

    /// Ports of nodes that no Service of type LoadBalancer gets; none if nodes do not answer for such Services.
    pub fn balancer_reserved_ports(&self) -> Option<Vec<u16>> {
        let own = [SSH_PORT, VXLAN_PORT, self.https_listen_port, self.peer_port, self.etcd_port];
        (!self.is_disabled("servicelb")).then(|| own.into_iter().chain(COMPONENT_PORTS).collect())
    }

    /// The options of this server's own node, which joins at `server` with `token`.
    pub fn agent_args(&self, server: String, token: String) -> AgentArgs {
        AgentArgs {
            server: Some(server),
            token: Some(token),
            token_file: None,
            data_dir: self.data_dir.clone(),
            config: self.config.clone(),
            node_name: self.node_name.clone(),
            node_ip: self.node_ip,
            node_external_ip: self.node_external_ip,
            node_label: self.node_label.clone(),
            node_taint: self.node_taint.clone(),
            container_runtime_endpoint: self.container_runtime_endpoint.clone(),
            cgroup_root: self.cgroup_root.clone(),
            log_level: self.log_level.clone(),
            kubelet_arg: self.upstream.kubelet_arg.clone(),
            kube_proxy_arg: self.upstream.kube_proxy_arg.clone(),
        }
    }
}
