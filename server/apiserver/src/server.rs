//! The parts of a running API server, shared by all its requests.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use trireme_raft::StoreStatus;

use crate::admin::Admin;
use crate::admission::AdmissionChain;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::health::ContactLost;
use crate::join::JoinService;
use crate::metrics::Metrics;
use crate::options::ApiServerOptions;
use crate::registry::Registry;
use crate::rows::Rows;

/// Who decides about requests.
pub struct Security {
    /// Who asks.
    pub authenticator: Authenticator,
    /// Whether he may.
    pub authorizer: Authorizer,
    /// Whether and how it is written.
    pub admission: AdmissionChain,
}

/// Everything a request needs.
pub struct Server {
    /// As started.
    pub options: ApiServerOptions,
    /// What is served.
    pub rows: Arc<Rows>,
    /// The objects.
    pub registry: Arc<Registry>,
    /// Identity, authorization, admission.
    pub security: Security,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Places for reading requests.
    pub reading: Arc<Semaphore>,
    /// Places for changing requests.
    pub writing: Arc<Semaphore>,
    /// Set when the objects that a cluster is born with are there.
    pub bootstrapped: AtomicBool,
    /// The doors for joining nodes and servers, once they are open.
    pub join: OnceLock<JoinService>,
    /// The operator's endpoints.
    pub admin: Admin,
    /// Cancelled when the server stops: ends watches and tunnels.
    pub stopping: CancellationToken,
    /// Since when there is no contact, as health checks saw it.
    pub contact_lost: ContactLost,
    /// The store's condition.
    pub store_status: watch::Receiver<StoreStatus>,
}

impl Server {
    /// Whether this server has contact to a quorum of its cluster.
    pub fn has_contact(&self) -> bool {
        self.store_status.borrow().has_quorum_contact
    }
}
