//! The API server: HTTP, filters, the generic registry over the replicated store, and the watch cache.
//!
//! Owns everything between a socket and a transaction. Must not know how the store replicates (`trireme-raft`), and holds no
//! controller logic. Answers to upstream's `k8s.io/apiserver` and `pkg/registry`.
//!
//! A request passes [`chain`], is dispatched by [`endpoints`], reads from the [`storage::cache`] or goes through the [`registry`]'s
//! pipeline into one transaction.

pub mod admission;
pub mod aggregation;
pub mod attributes;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod catalog;
pub mod chain;
pub mod conversion;
pub mod egress;
pub mod endpoints;
mod error;
pub mod flowcontrol;
pub mod http;
mod loopback;
pub mod metrics;
mod options;
pub mod registry;
pub mod resource_metrics;
pub mod server;
mod server_keys;
pub mod storage;
pub mod user;
pub mod version;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_api::resource::Definition;
use trireme_raft::Store;

pub use admission::effects::Effects;
pub use admission::request::{AdmissionRequest, Operation};
pub use attributes::Attributes;
pub use error::{Answer, Error, store_status};
pub use http::respond::{Body, BoxError};
pub use options::ApiServerOptions;
pub use server_keys::ServerKeys;
pub use storage::lookup::{LookedUp, ObjectReader};
pub use user::{Caller, UserInfo};

use authn::providers::{ProviderOptions, Providers};
use authn::{Authenticator, Peer, ServiceAccountTokens};
use catalog::rows::Rows;
use chain::body::budget::BodyBudget;
use chain::call::Source;
use chain::flowcontrol::inflight::InFlight;
use flowcontrol::control::FlowControl;
use http::body::Payload;
use http::serve::Service;
use server::{Security, Server};
use storage::Storage;
use storage::cache::Cache;
use storage::sealing::Keyring;

/// How long a server that ends waits for the audit webhook.
const AUDIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// A running API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    server: Arc<Server>,
}

// === impl ApiServer ===

impl ApiServer {
    /// Fills the watch cache from the store and starts to follow it. Nothing is served yet.
    pub async fn start(options: ApiServerOptions, keys: ServerKeys, store: Store) -> Result<ApiServer, Error> {
        let stopping = CancellationToken::new();
        let keyring = Arc::new(Keyring::new(keys.data));
        let rows = Arc::new(Rows::builtin(options.watch_window_bytes));
        let cache = Cache::start(store.clone(), rows.clone(), keyring.clone(), stopping.clone())?;
        let store_status = store.status();
        let storage = Arc::new(Storage::new(store, cache, rows.clone(), keyring));
        let authorizer = authz::Authorizer::new(storage.clone());
        let issuer = ServiceAccountTokens::default_issuer(&options.cluster_domain);
        let own_issuers = vec![issuer.clone()];
        let tokens = Arc::new(ServiceAccountTokens::new(issuer, Vec::new(), keys.service_account, storage.clone()));
        let tunnels = Arc::new(egress::Tunnels::new(options.tunnels, options.egress.clone()));
        let providers = Providers::open(&options.providers, tunnels.clone(), own_issuers);
        let providers = Arc::new(providers.map_err(|error| Error::Option(format!("identity providers: {error}")))?);
        let authenticator = Authenticator::new(keys.client_authorities, keys.front_proxy_authorities, tokens)?
            .with_providers(providers.clone())
            .with_bootstrap_tokens(options.bootstrap_tokens);
        let aggregation =
            aggregation::Aggregation::new(storage.clone(), rows.clone(), tunnels.clone(), options.aggregator_identity.clone());
        let conversions = Arc::new(conversion::Conversions::new(tunnels.clone(), storage.clone()));
        let configuration = match &options.admission_configuration {
            Some(path) => admission::configuration::Configuration::open(path).map_err(Error::Option)?,
            None => admission::configuration::Configuration::default(),
        };
        let loopback = admission::loopback::Loopback::default();
        let environment = admission::plugin::Environment {
            reader: storage.clone(),
            store: storage.clone(),
            authorizer: authorizer.clone(),
            egress: tunnels.clone(),
            ranges: options.ranges.clone(),
            tolerations: options.tolerations,
            rows: rows.clone(),
            configuration: Arc::new(configuration),
            loopback: loopback.clone(),
        };
        let plugins = admission::builtin::plugins(&environment, &options.admission).map_err(Error::Option)?;
        let admission = admission::chain::Chain::new(plugins);
        let metrics = metrics::Metrics::new();
        admission.metrics().register(metrics.registry());
        providers.register(metrics.registry());
        if let ProviderOptions::File(path) = &options.providers {
            let (path, stopping) = (path.clone(), stopping.clone());
            tokio::spawn(async move { stopping.run_until_cancelled(providers.follow(&path)).await });
        }
        if let Some(audit) = &options.audit {
            audit.register(metrics.registry());
            audit.start(|| egress::webhooks::Client::new(tunnels.clone(), storage.clone()));
        }
        let security = Security { authenticator, admission, authorizer };
        let inflight = InFlight::new(options.max_requests_inflight, options.max_mutating_requests_inflight, metrics.inflight.clone());
        let limits = [options.max_requests_inflight, options.max_mutating_requests_inflight];
        let flowcontrol = options.priority_and_fairness.then(|| FlowControl::new(limits, metrics.inflight.clone()));
        if let Some(control) = &flowcontrol {
            control.register(metrics.registry());
        }
        let kubelet_tls = options.kubelet_tls.clone();
        let resource_metrics =
            options.resource_metrics.then(|| resource_metrics::ResourceMetrics::new(storage.clone(), tunnels.clone(), kubelet_tls));
        let server = Server {
            resource_metrics,
            options,
            rows,
            storage,
            conversions,
            aggregation,
            security,
            metrics,
            inflight,
            flowcontrol,
            bodies: BodyBudget::default(),
            bootstrapped: AtomicBool::new(false),
            extra_routes: std::sync::OnceLock::new(),
            operator_routes: endpoints::operator::OperatorRoutes::default(),
            tunnels,
            stopping,
            compressor: chain::compression::Compressor::default(),
            openapi: endpoints::openapi::kept::KeptDocuments::default(),
            contact_lost: endpoints::health::contact::ContactLost::default(),
            store_status,
        };
        let server = Arc::new(server);
        loopback::connect(&server, &loopback);
        tokio::spawn(aggregation::availability::run(server.clone()));
        tokio::spawn(flowcontrol::upkeep::run(server.clone()));
        Ok(ApiServer { server })
    }

    /// Serves HTTPS until `shutdown`, then drains connections. `tls` must ask for, and accept, any client certificate
    /// ([`authn::accept_any_verifier`]): authentication judges it and answers with a Status.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: CancellationToken) {
        let stopping = self.server.stopping.clone();
        let ending = shutdown.clone();
        let _end_watches = tokio::spawn(async move {
            ending.cancelled().await;
            stopping.cancel();
        });
        http::serve::serve(Arc::new(self.clone()), listener, tls, shutdown).await;
        if let Some(audit) = &self.server.options.audit {
            audit.flush(AUDIT_FLUSH_TIMEOUT).await;
        }
    }

    /// An endpoint for health and metrics of a component, to be served with [`http::serve::serve`]; this server authorizes its requests.
    pub fn component(&self, name: &'static str, metrics: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> http::component::Component {
        let security = &self.server.security;
        let tls_errors = self.server.metrics.tls_handshake_errors.clone();
        http::component::Component::new(name, security.authenticator.clone(), security.authorizer.clone(), tls_errors, metrics)
    }

    /// A request of a part of this process: the same filters, the caller's identity already known.
    pub async fn call(&self, caller: Caller, request: Request<Bytes>) -> Response<Body> {
        let source = Source::InProcess(Box::new(caller.user), caller.fence);
        chain::run(self.server.clone(), source, request.map(Payload::from)).boxed().await
    }

    /// A request from the network; its connection's [`Peer`] is an extension.
    pub async fn handle(&self, request: Request<impl Into<Payload>>) -> Response<Body> {
        chain::run(self.server.clone(), Source::Network, request.map(Into::into)).boxed().await
    }

    /// What the certificates of a connection prove.
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        self.server.security.authenticator.peer(chain, Timestamp::now())
    }

    /// The objects, for parts of this process that read them.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.server.storage
    }

    /// Serves a resource that is defined at run time: all views of one storage. It takes the place of one of the same name.
    pub async fn serve_resource(&self, views: Vec<Arc<Definition>>) -> Result<(), Error> {
        self.server.storage.cache.add_row(views).await.map(|_| ())
    }

    /// Stops serving a resource; its objects stay in the store. False if it is not served.
    pub async fn stop_serving(&self, group: &str, plural: &str) -> bool {
        self.server.storage.cache.remove_row(group, plural).await
    }

    /// The authorizer.
    pub fn authorizer(&self) -> &authz::Authorizer {
        &self.server.security.authorizer
    }

    /// The authenticator.
    pub fn authenticator(&self) -> &Authenticator {
        &self.server.security.authenticator
    }

    /// Where other parts of this process register what they show on this server's `/metrics`.
    pub fn metrics_registry(&self) -> &prometheus::Registry {
        self.server.metrics.registry()
    }

    /// Whether `/readyz` passes.
    pub fn is_ready(&self) -> bool {
        endpoints::health::is_ready(&self.server)
    }

    /// Whether the objects that every cluster has are there.
    pub fn is_bootstrapped(&self) -> bool {
        self.server.bootstrapped.load(Ordering::Acquire)
    }

    /// From now on the objects that every cluster has are there: `/readyz` may pass.
    pub fn mark_bootstrapped(&self) {
        self.server.bootstrapped.store(true, Ordering::Release);
    }

    /// Adds routes outside the Kubernetes API. A second call changes nothing.
    pub fn set_extra_routes(&self, routes: Arc<dyn http::extra_routes::ExtraRoutes>) {
        let _ = self.server.extra_routes.set(routes);
    }

    /// Adds endpoints for the operator below `/trireme/v1/<name of the family>`.
    pub fn add_operator_routes(&self, family: Arc<dyn endpoints::operator::RouteFamily>) {
        self.server.operator_routes.add(family);
    }

    /// Shows in `/metrics` when these certificates end.
    pub fn note_certificates(&self, certificates: &[trireme_api::admin::CertificateInfo]) {
        for certificate in certificates {
            self.server.metrics.certificate_expiry.with_label_values(&[certificate.name.as_str()]).set(certificate.not_after as f64);
        }
    }

    /// Ends watches and tunnels, and stops following the store.
    pub fn stop(&self) {
        self.server.stopping.cancel();
    }
}

impl Service for ApiServer {
    fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        ApiServer::peer(self, chain)
    }

    fn answer(&self, request: Request<Payload>) -> BoxFuture<'_, Response<Body>> {
        self.handle(request).boxed()
    }

    fn count_tls_error(&self) {
        self.server.metrics.tls_handshake_errors.inc();
    }
}
