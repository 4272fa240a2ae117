//! The options of an API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::builtin::Selection;
use crate::admission::plugins::service_allocation::Ranges;
use crate::admission::toleration_seconds::TolerationSeconds;
use crate::audit::Audit;
use crate::authn::providers::ProviderOptions;
use crate::egress::{Direct, Egress, TunnelUse};

/// Everything that [`crate::ApiServer::start`] needs besides the store.
pub struct ApiServerOptions {
    /// Ranges of Service addresses and node ports.
    pub ranges: Ranges,
    /// Which admission plugins run.
    pub admission: Selection,
    /// The file that says how admission plugins are configured. None: each has its defaults.
    pub admission_configuration: Option<PathBuf>,
    /// The `tolerationSeconds` for pods without a toleration of nodes that are not ready or unreachable.
    pub tolerations: TolerationSeconds,
    /// The cluster's DNS domain: names the token issuer.
    pub cluster_domain: String,
    /// `host:port` under which clients reach this server; shown in discovery.
    pub advertise_address: String,
    /// How long a request may take (long-running ones excepted).
    pub request_timeout: Duration,
    /// Reading requests served at once.
    pub max_requests_inflight: usize,
    /// Changing requests served at once.
    pub max_mutating_requests_inflight: usize,
    /// Whether these numbers are divided by priority and fairness (or else each is a fixed limit).
    pub priority_and_fairness: bool,
    /// Bytes of changes that each resource keeps for watchers.
    pub watch_window_bytes: usize,
    /// The way to nodes and pods that no tunnel leads to.
    pub egress: Arc<dyn Egress>,
    /// Which connections use the tunnels of agents.
    pub tunnels: TunnelUse,
    /// TLS towards kubelets: our client certificate, and the CA that signed theirs. None: no logs, no exec.
    pub kubelet_tls: Option<Arc<rustls::ClientConfig>>,
    /// The certificate by which extension servers know that the headers about the user are true. None: they must ask who it is.
    pub aggregator_identity: Option<Arc<dyn rustls::client::ResolvesClientCert>>,
    /// Whether the server says what nodes and pods use (`metrics.k8s.io`) where no extension server does.
    pub resource_metrics: bool,
    /// Whether bootstrap tokens authenticate.
    pub bootstrap_tokens: bool,
    /// The identity providers whose tokens are accepted.
    pub providers: ProviderOptions,
    /// What is recorded of requests. None: nothing.
    pub audit: Option<Arc<Audit>>,
}

impl Default for ApiServerOptions {
    fn default() -> ApiServerOptions {
        ApiServerOptions {
            ranges: Ranges::default(),
            admission: Selection::default(),
            admission_configuration: None,
            tolerations: TolerationSeconds::default(),
            cluster_domain: "cluster.local".to_owned(),
            advertise_address: "127.0.0.1:6443".to_owned(),
            request_timeout: Duration::from_secs(60),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            priority_and_fairness: true,
            watch_window_bytes: 4 * 1024 * 1024,
            egress: Arc::new(Direct::default()),
            tunnels: TunnelUse::KubeletsAndPods,
            kubelet_tls: None,
            aggregator_identity: None,
            resource_metrics: true,
            bootstrap_tokens: false,
            providers: ProviderOptions::None,
            audit: None,
        }
    }
}
