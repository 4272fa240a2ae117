//! The parts of a running API server, shared by all its requests.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_api::discovery::extension::ExtensionGroup;
use trireme_raft::StoreStatus;

use crate::admission::chain::Chain;
use crate::aggregation::Aggregation;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::catalog::rows::Rows;
use crate::chain::body::budget::BodyBudget;
use crate::chain::compression::Compressor;
use crate::chain::flowcontrol::inflight::InFlight;
use crate::conversion::Conversions;
use crate::egress::Tunnels;
use crate::endpoints::health::contact::ContactLost;
use crate::endpoints::openapi::kept::KeptDocuments;
use crate::endpoints::operator::OperatorRoutes;
use crate::flowcontrol::control::FlowControl;
use crate::http::extra_routes::ExtraRoutes;
use crate::metrics::Metrics;
use crate::options::ApiServerOptions;
use crate::resource_metrics::{self, ResourceMetrics};
use crate::storage::Storage;

/// The components that decide about requests.
pub struct Security {
    /// Which user asks.
    pub authenticator: Authenticator,
    /// Authorizes requests.
    pub authorizer: Authorizer,
    /// Whether and how it is written.
    pub admission: Chain,
}

/// Everything a request needs.
pub struct Server {
    /// As started.
    pub options: ApiServerOptions,
    /// What is served.
    pub rows: Arc<Rows>,
    /// The objects.
    pub storage: Arc<Storage>,
    /// The way to other versions of them, where webhooks convert.
    pub conversions: Arc<Conversions>,
    /// The servers that answer further groups and versions.
    pub aggregation: Aggregation,
    /// What nodes and pods use; none where another component answers.
    pub resource_metrics: Option<ResourceMetrics>,
    /// Identity, authorization, admission.
    pub security: Security,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// The places of requests in flight.
    pub inflight: InFlight,
    /// Priority and fairness; none where it is switched off.
    pub flowcontrol: Option<FlowControl>,
    /// The memory that bodies of requests may take.
    pub bodies: BodyBudget,
    /// Compresses large answers.
    pub compressor: Compressor,
    /// OpenAPI documents that were compressed before.
    pub openapi: KeptDocuments,
    /// Set when the objects that every cluster has from its start are there.
    pub bootstrapped: AtomicBool,
    /// Routes outside the Kubernetes API, once another part has set them.
    pub extra_routes: OnceLock<Arc<dyn ExtraRoutes>>,
    /// The operator's endpoints.
    pub operator_routes: OperatorRoutes,
    /// The tunnels that agents have opened, and the way to nodes and pods.
    pub tunnels: Arc<Tunnels>,
    /// Cancelled when the server stops: ends watches and tunnels.
    pub stopping: CancellationToken,
    /// Since when there is no contact, as health checks saw it.
    pub contact_lost: ContactLost,
    /// The store's condition.
    pub store_status: watch::Receiver<StoreStatus>,
}

impl Server {
    /// Whether this server itself says what nodes and pods use: no extension server does.
    pub fn measures_usage(&self) -> bool {
        self.resource_metrics.is_some() && !self.aggregation.has_group(resource_metrics::GROUP)
    }

    /// The groups that discovery shows beside those in the store.
    pub fn extension_groups(&self) -> Vec<ExtensionGroup> {
        let mut groups = self.aggregation.groups();
        groups.extend(self.measures_usage().then(resource_metrics::group));
        groups
    }

    /// Whether this server has contact to a quorum of its cluster.
    pub fn has_contact(&self) -> bool {
        self.store_status.borrow().has_quorum_contact
    }
}
