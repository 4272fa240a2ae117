//! One leadership, and what a controller gets from it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trireme_client::metrics::ComponentMetrics;
use trireme_client::{Client, EventRecorder};

use crate::ControllerOptions;

/// Gives the client that speaks as a controller, e.g. `deployment-controller`.
pub(crate) type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Everything that lives as long as a leadership.
pub(crate) struct Lead {
    /// Clients whose writes carry the leadership's fence.
    pub(crate) client_for: ClientFor,
    pub(crate) recorder: EventRecorder,
    pub(crate) options: Arc<ControllerOptions>,
    /// Work starts when a controller's informers have passed this.
    pub(crate) revision: i64,
    pub(crate) cancel: CancellationToken,
}

impl Lead {
    pub(crate) fn metrics(&self) -> &ComponentMetrics {
        &self.options.metrics
    }
}

/// What one controller gets from a leadership.
pub(crate) struct Context {
    /// Speaks as the controller, fenced.
    pub(crate) client: Client,
    /// Records events as the controller.
    pub(crate) recorder: EventRecorder,
    pub(crate) options: Arc<ControllerOptions>,
}

impl Context {
    pub(crate) fn new(lead: &Lead, name: &str, component: &str) -> Self {
        Self { client: (lead.client_for)(name), recorder: lead.recorder.for_component(component), options: Arc::clone(&lead.options) }
    }
}
