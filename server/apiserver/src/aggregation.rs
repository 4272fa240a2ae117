//! Groups and versions that other servers answer: the aggregation layer.
//!
//! Owns which group versions an APIService gives to an extension server ([`table`]), how such a server is spoken to and as whom
//! ([`identity`]), whether it can be reached ([`availability`]), and what discovery says about it ([`documents`]). Must not decide who
//! may ask: requests are authorized before they are passed on (`endpoints::extension`). A group version that this server serves itself
//! is never passed on.
//!
//! Answers to upstream's `k8s.io/kube-aggregator` and
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/>.

pub mod availability;
pub mod client;
pub mod documents;
pub mod identity;
pub mod table;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use trireme_api::discovery::extension::{ExtensionGroup, ExtensionVersion};

use crate::catalog::rows::Rows;
use crate::egress::Egress;
use crate::http::request_info::RequestInfo;
use crate::storage::lookup::ObjectReader;
use client::Client;
use documents::Documents;
use table::{Remote, Table};

/// Group of the kind that names extension servers.
pub const GROUP: &str = "apiregistration.k8s.io";
/// Plural of that kind.
pub const PLURAL: &str = "apiservices";

/// The extension servers of this cluster.
pub struct Aggregation {
    reader: Arc<dyn ObjectReader>,
    rows: Arc<Rows>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
    kept: Mutex<Kept>,
    documents: Documents,
    client: Client,
}

/// The table and the revision that it was made of.
#[derive(Default)]
struct Kept {
    revision: Option<i64>,
    table: Arc<Table>,
}

// === impl Aggregation ===

impl Aggregation {
    /// With the certificate that extension servers know the aggregator by.
    pub fn new(
        reader: Arc<dyn ObjectReader>,
        rows: Arc<Rows>,
        egress: Arc<dyn Egress>,
        identity: Option<Arc<dyn ResolvesClientCert>>,
    ) -> Aggregation {
        let client = Client::new(egress, reader.clone());
        Aggregation { reader, rows, identity, kept: Mutex::default(), documents: Documents::default(), client }
    }

    /// The APIServices with a server behind them, as they are now.
    pub fn table(&self) -> Arc<Table> {
        let revision = self.reader.last_change(GROUP, PLURAL);
        let mut kept = self.kept.lock();
        if kept.revision != Some(revision) {
            let objects = self.reader.list(GROUP, PLURAL, None);
            let table = Table::of(objects.iter().map(|one| &*one.object), self.identity.as_ref(), &kept.table);
            *kept = Kept { revision: Some(revision), table: Arc::new(table) };
        }
        kept.table.clone()
    }

    /// The extension server of a request, if one answers it: what is below `/apis/GROUP/VERSION`, and the document about it.
    pub fn route(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        let parts = info.path.strip_prefix('/')?;
        let mut parts = parts.strip_prefix("openapi/v3/").unwrap_or(parts).split('/');
        let (Some("apis"), Some(group), Some(version)) = (parts.next(), parts.next(), parts.next()) else { return None };
        // Nearly all clusters have few extension servers, so they are looked up first.
        self.table().find(group, version).filter(|_| !self.rows.serves_group_version(group, version))
    }

    /// Whether an extension server answers a version of a group.
    pub fn has_group(&self, group: &str) -> bool {
        self.table().by_priority().iter().any(|remote| remote.group == group)
    }

    /// What discovery adds to the groups of this server: those of higher priority first.
    pub fn groups(&self) -> Vec<ExtensionGroup> {
        let mut groups: Vec<ExtensionGroup> = Vec::new();
        for remote in self.table().by_priority() {
            if self.rows.serves_group_version(&remote.group, &remote.version) {
                continue;
            }
            let document = self.documents.get(&remote.name);
            let version = ExtensionVersion {
                version: remote.version.clone(),
                resources: document.resources.clone(),
                is_current: remote.is_available && document.is_current,
            };
            match groups.iter_mut().find(|group| group.name == remote.group) {
                Some(group) => group.versions.push(version),
                None => groups.push(ExtensionGroup { name: remote.group.clone(), versions: vec![version] }),
            }
        }
        groups
    }

    /// Group versions with the addresses of their OpenAPI documents, as `(apis/GROUP/VERSION, address)`.
    pub fn openapi(&self) -> Vec<(String, String)> {
        let of = |remote: Arc<Remote>| {
            let address = self.documents.get(&remote.name).openapi.clone()?;
            Some((format!("apis/{}/{}", remote.group, remote.version), address))
        };
        self.table().by_priority().into_iter().filter_map(of).collect()
    }

    /// Asks a server for its documents, which discovery shows from then on.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn ask(&self, remote: &Remote) -> Result<(), String> {
        self.documents.refresh(&self.client, remote).await
    }

    /// Forgets the documents of servers that are not in the table any more.
    pub fn forget_all_but(&self, table: &Table) {
        let names: HashSet<String> = table.by_priority().iter().map(|remote| remote.name.clone()).collect();
        self.documents.retain(|name| names.contains(name));
    }

    /// The objects, for those who look up Services.
    pub fn reader(&self) -> &dyn ObjectReader {
        &*self.reader
    }
}
