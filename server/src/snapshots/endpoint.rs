//! `/trireme/v1/snapshots`: what `trireme snapshot` asks a running server for.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use jiff::Timestamp;
use trireme_api::admin::{SNAPSHOTS, Snapshot, SnapshotList, SnapshotPrune, SnapshotRequest};
use trireme_api::status::Status;
use trireme_apiserver::Answer;
use trireme_apiserver::Body;
use trireme_apiserver::BoxError;
use trireme_apiserver::endpoints::operator::{RouteFamily, RouteRequest, json, method_not_allowed, not_found};
use trireme_apiserver::http::respond;
use trireme_raft::{Store, StoreError};

use super::{Folder, ON_DEMAND, SCHEDULED, SnapshotError, name};

/// A server's snapshots. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots {
    store: Store,
    folder: Folder,
    node: String,
    /// Held while one is saved: a second one would only make both slower.
    saving: Arc<tokio::sync::Mutex<()>>,
}

impl RouteFamily for Snapshots {
    fn name(&self) -> &'static str {
        SNAPSHOTS
    }

    fn answer(&self, request: RouteRequest) -> BoxFuture<'_, Answer<Response<Body>>> {
        self.dispatch(request).boxed()
    }
}

impl Snapshots {
    /// Those of this server, in this folder.
    pub fn new(store: Store, folder: Folder, node: &str) -> Snapshots {
        Snapshots { store, folder, node: node.to_owned(), saving: Arc::default() }
    }

    /// Saves one and proves it.
    pub async fn save(&self, base: &str) -> Result<Snapshot, SnapshotError> {
        let _one_at_a_time = self.saving.try_lock().map_err(|_| SnapshotError::Busy)?;
        let name = name(base, &self.node, Timestamp::now())?;
        self.folder.sweep();
        let archive = self.store.backup().await.map_err(|source| SnapshotError::Store { name: name.clone(), source })?;
        let saved = self.folder.save(&name, archive).await?;
        tracing::info!(name = saved.name, revision = saved.revision, size_bytes = saved.size_bytes, "a snapshot was saved and proven");
        Ok(saved)
    }

    /// Removes all but the newest `retention` that begin with `base`.
    pub fn prune(&self, base: &str, retention: usize) -> Result<Vec<Snapshot>, SnapshotError> {
        let removed = self.folder.prune(base, retention)?;
        for snapshot in &removed {
            tracing::info!(name = snapshot.name, "an old snapshot was removed");
        }
        Ok(removed)
    }

    /// How the names of this server's scheduled snapshots begin: in a shared folder the others' are theirs.
    pub fn scheduled(&self) -> String {
        format!("{SCHEDULED}-{}-", self.node)
    }

    async fn dispatch(&self, request: RouteRequest) -> Answer<Response<Body>> {
        match (&request.method, request.parts().as_slice()) {
            (&Method::GET, []) => {
                let snapshots = self.folder.list().map_err(|error| refusal(&error))?;
                json(&SnapshotList { snapshots })
            }
            (&Method::POST, []) => {
                let asked: SnapshotRequest = request.json()?;
                let base = asked.name.unwrap_or_else(|| ON_DEMAND.to_owned());
                json(&self.save(&base).await.map_err(|error| refusal(&error))?)
            }
            (&Method::POST, ["prune"]) => {
                let asked: SnapshotPrune = request.json()?;
                let snapshots = self.prune(asked.name.as_deref().unwrap_or_default(), asked.retention).map_err(|error| refusal(&error))?;
                json(&SnapshotList { snapshots })
            }
            (&Method::GET, ["archive"]) => self.archive().await,
            (_, [] | ["prune" | "archive"]) => Err(method_not_allowed(&request)),
            _ => Err(not_found()),
        }
    }

    /// The archive as it is made; the client's connection sets the pace.
    async fn archive(&self) -> Answer<Response<Body>> {
        let backup = self.store.backup().await;
        let backup = backup.map_err(|source| refusal(&SnapshotError::Store { name: "archive".into(), source }))?;
        let pieces = futures::stream::unfold(Some(backup), |backup| async move {
            let mut backup = backup?;
            match backup.next().await? {
                Ok(piece) => Some((Ok(piece), Some(backup))),
                Err(error) => Some((Err(BoxError::from(error)), None)),
            }
        });
        let mut response = Response::new(respond::stream(pieces));
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
        Ok(response)
    }
}

fn refusal(error: &SnapshotError) -> Box<Status> {
    Box::new(match error {
        SnapshotError::Name(_) => Status::bad_request(error.to_string()),
        SnapshotError::Busy => Status::failure(409, "Conflict", error.to_string()),
        SnapshotError::Store { source: StoreError::NoLeader(_) | StoreError::Shutdown, .. } => {
            Status::service_unavailable(error.to_string())
        }
        _ => Status::internal(error),
    })
}
