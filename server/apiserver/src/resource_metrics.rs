//! What nodes and pods use: the API `metrics.k8s.io`, answered by this server itself from what kubelets measure.
//!
//! Owns the samples ([`samples`]), how a kubelet is asked ([`scrape`]), and the shape of the objects ([`objects`]). A kubelet is asked only
//! when a client requests its metrics; there is no background scraping. An APIService for the group takes precedence, so a
//! deployed metrics-server can take this one's place.
//!
//! Answers to <https://github.com/kubernetes/metrics> and upstream's metrics-server.

pub mod objects;
pub mod samples;
pub mod scrape;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;
use trireme_api::discovery::extension::{ExtensionGroup, ExtensionVersion};

use crate::egress::Egress;
use crate::http::request_info::RequestInfo;
use crate::storage::lookup::ObjectReader;
use samples::{NodeUsage, Window};
use scrape::Kubelets;

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// Its versions, which are alike; the preferred one first.
pub const VERSIONS: [&str; 2] = ["v1beta1", "v1"];
/// Kubelets that are asked at the same time.
const AT_ONCE: usize = 16;

/// The samples of all nodes that were asked for.
pub struct ResourceMetrics {
    reader: Arc<dyn ObjectReader>,
    kubelets: Kubelets,
    windows: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Window>>>>,
}

/// Whether a request is for this API.
pub fn is_addressed(info: &RequestInfo) -> bool {
    info.group == GROUP && VERSIONS.contains(&info.version.as_str())
}

/// What discovery shows.
pub fn group() -> ExtensionGroup {
    let version = |version: &&str| ExtensionVersion {
        version: (*version).to_owned(),
        resources: Some(Arc::new(objects::resource_list(version))),
        is_current: true,
    };
    ExtensionGroup { name: GROUP.to_owned(), versions: VERSIONS.iter().map(version).collect() }
}

// === impl ResourceMetrics ===

impl ResourceMetrics {
    /// With the nodes that `reader` knows, whose kubelets are asked by `egress` and accept the certificate of `tls`.
    pub fn new(reader: Arc<dyn ObjectReader>, egress: Arc<dyn Egress>, tls: Option<Arc<rustls::ClientConfig>>) -> ResourceMetrics {
        ResourceMetrics { reader, kubelets: Kubelets { egress, tls }, windows: Mutex::default() }
    }

    /// What these nodes and their pods use. Nodes that do not answer are left out.
    pub async fn of(&self, nodes: BTreeSet<String>) -> Vec<NodeUsage> {
        self.forget_removed();
        let found = futures::stream::iter(nodes).map(|node| self.of_node(node));
        found.buffered(AT_ONCE).filter_map(|usage| async move { usage }).collect().await
    }

    async fn of_node(&self, node: String) -> Option<NodeUsage> {
        let window = self.windows.lock().entry(node.clone()).or_default().clone();
        // Requests that come meanwhile get the same samples.
        let mut window = window.lock().await;
        while let Some(pause) = window.wants() {
            tokio::time::sleep(pause).await;
            match self.kubelets.summary(&*self.reader, &node).await {
                Ok(sample) => window.add(sample),
                Err(error) => {
                    tracing::debug!(node, error, "a kubelet does not say what its pods use");
                    return None;
                }
            }
        }
        window.usage(node)
    }

    fn forget_removed(&self) {
        self.windows.lock().retain(|node, _| self.reader.get("", "nodes", "", node).is_some());
    }
}
