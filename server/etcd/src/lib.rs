//! The etcd v3 API over the store: what `etcdctl`, etcd's clients and an unmodified kube-apiserver speak on port 2379.
//!
//! Owns the gRPC services (one file each), their limits and error texts, the HTTP pages beside them, and what outside
//! clients may not see: Kubernetes' own keys ([`HiddenKeys`]), and records that are no keys at all. Must not know how the
//! store replicates, nor what the hidden keys hold.
//!
//! Answers to <https://etcd.io/docs/v3.6/learning/api/> and
//! <https://etcd.io/docs/v3.6/learning/api_guarantees/>. There are no users and roles: access is decided by the
//! client certificate, once for a connection.

mod auth;
mod backend;
mod cluster;
mod election;
mod error;
mod health;
mod hidden;
mod http;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod metrics;
mod retention;
mod serve;
mod snapshot;
mod wait_queue;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use trireme_proto::{election as election_proto, etcd, health as health_proto, lock as lock_proto};
use trireme_raft::Store;

use backend::Backend;
pub use hidden::HiddenKeys;

/// The etcd release whose API is served, with a suffix of ours. Tools parse it to choose the features they use.
pub const VERSION: &str = "3.6.0+trireme";
/// The same for the cluster as a whole.
pub const CLUSTER_VERSION: &str = "3.6.0";

/// The limit of gRPC messages: larger than [`kv::MAX_REQUEST_BYTES`], so that a request that is too large gets etcd's error.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// What an [`EtcdApi`] is made of.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Keys that clients do not get to see.
    pub hidden: HiddenKeys,
    /// How often a watch that asked for it hears that nothing has happened.
    pub progress_interval: Duration,
    /// History younger than this is not compacted by clients. Zero: they may compact all of it.
    pub retention: Duration,
}

/// The etcd v3 API. Cheap to clone.
#[derive(Clone)]
pub struct EtcdApi {
    backend: Backend,
    calls: Arc<metrics::Calls>,
}

// === impl EtcdOptions ===

impl Default for EtcdOptions {
    fn default() -> EtcdOptions {
        EtcdOptions { hidden: HiddenKeys::none(), progress_interval: Duration::from_secs(600), retention: Duration::ZERO }
    }
}

// === impl EtcdApi ===

impl EtcdApi {
    /// Over this store. `cancel` ends streams and waiting calls.
    #[must_use]
    pub fn new(store: Store, options: EtcdOptions, cancel: CancellationToken) -> EtcdApi {
        EtcdApi { backend: Backend::new(store, options, cancel), calls: Arc::new(metrics::Calls::new()) }
    }

    /// Everything that is served on the port.
    pub fn router(&self) -> axum::Router {
        let backend = &self.backend;
        macro_rules! service {
            ($server:ty, $service:expr) => {
                <$server>::new($service).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(usize::MAX)
            };
        }
        let routes = Routes::default()
            .add_service(service!(etcd::kv_server::KvServer<_>, kv::KvService::new(backend.clone())))
            .add_service(service!(etcd::watch_server::WatchServer<_>, watch::WatchService::new(backend.clone())))
            .add_service(service!(etcd::lease_server::LeaseServer<_>, lease::LeaseService::new(backend.clone())))
            .add_service(service!(etcd::cluster_server::ClusterServer<_>, cluster::ClusterService::new(backend.clone())))
            .add_service(service!(etcd::maintenance_server::MaintenanceServer<_>, maintenance::MaintenanceService::new(backend.clone())))
            .add_service(service!(etcd::auth_server::AuthServer<_>, auth::AuthService::new(backend.clone())))
            .add_service(service!(election_proto::election_server::ElectionServer<_>, election::ElectionService::new(backend.clone())))
            .add_service(service!(lock_proto::lock_server::LockServer<_>, lock::LockService::new(backend.clone())))
            .add_service(service!(health_proto::health_server::HealthServer<_>, health::HealthService::new(backend.clone())));
        let router = routes.prepare().into_axum_router().merge(http::pages(backend.clone(), self.calls.clone()));
        let router = router.fallback(http::nothing);
        router.layer(metrics::CallsLayer::new(self.calls.clone(), backend.clone()))
    }

    /// Serves clients that `tls` accepts on `listener` until cancelled; then ends the calls in progress.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let cancel = self.backend.cancel().clone();
        let serving = serve::serve(self.router(), listener, tls, cancel);
        let retaining = self.backend.retention().follow(|| self.backend.store().revision());
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return,
            () = retaining => {}
        }
        serving.await;
    }
}
