//! Applies the files of `<data-dir>/server/manifests`, as k3s does: at the start of each leadership and whenever a file changes.
//!
//! Files end in `.yaml`, `.yml` or `.json` and may hold several documents and lists. A file `NAME.skip` keeps `NAME` from being
//! applied. An object that does not exist is created, one that does gets the file's fields by a merge patch; the annotation
//! [`apply::FILE`] names the file. Objects of a file that is deleted stay. Every server looks after its own folder, but only the
//! leader applies: each server's files should be the same.
//!
//! Owns when to apply and what to say on an error. Must not do: change files. Answers to
//! <https://docs.k3s.io/installation/packaged-components#auto-deploying-manifests-addons>.

mod apply;
mod documents;
mod folder;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::ApiServer;
use trireme_raft::Fence;

use apply::Applier;
use folder::{Entry, Stamp};

/// How often the folder is looked at. k3s' interval is three times as long.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);
/// The first wait after a file could not be applied; it doubles up to the longest.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The state of a manifest file.
struct Known {
    stamp: Stamp,
    /// When it is tried again, and the wait after that; none: it is applied.
    retry: Option<(Instant, Duration)>,
}

/// The folder of manifests of one server.
pub struct Manifests {
    folder: PathBuf,
    applier: Applier,
    known: HashMap<PathBuf, Known>,
    complaints: HashMap<PathBuf, String>,
}

// === impl Manifests ===

impl Manifests {
    /// Applies `folder` through `api`, under the fence of a leadership. Errors become Events of the Node `node_name`.
    pub fn new(folder: PathBuf, api: ApiServer, fence: Fence, node_name: String) -> Manifests {
        Manifests { folder, applier: Applier::new(api, fence, node_name), known: HashMap::new(), complaints: HashMap::new() }
    }

    /// Follows the folder until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.look().await;
            tokio::select! {
                () = tokio::time::sleep(SCAN_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look(&mut self) {
        let folder = self.folder.clone();
        let scanned = match tokio::task::spawn_blocking(move || folder::scan(&folder)).await {
            Ok(scanned) => scanned,
            Err(error) => return tracing::warn!(%error, "the folder of manifests cannot be looked at"),
        };
        for (path, why) in &scanned.refused {
            if self.complaints.insert(path.clone(), why.clone()).as_ref() != Some(why) {
                tracing::warn!(file = %path.display(), why, "a manifest is not applied");
            }
        }
        self.complaints.retain(|path, _| scanned.refused.iter().any(|(refused, _)| refused == path));
        self.known.retain(|path, _| scanned.files.iter().any(|entry| entry.path == *path));
        for entry in scanned.files {
            let due = match self.known.get(&entry.path) {
                None => true,
                Some(known) if known.stamp != entry.stamp => true,
                Some(known) => known.retry.is_some_and(|(at, _)| at <= Instant::now()),
            };
            if due {
                self.apply(entry).await;
            }
        }
    }

    async fn apply(&mut self, entry: Entry) {
        let before = self.known.get(&entry.path).filter(|known| known.stamp == entry.stamp).and_then(|known| known.retry);
        let outcome = match documents::read(&entry.path) {
            Ok(objects) => self.applier.apply(&entry.name, objects).await,
            Err(error) => Err(error),
        };
        let retry = match outcome {
            Ok(count) => {
                tracing::info!(file = entry.name, objects = count, "a manifest is applied");
                None
            }
            Err(error) => {
                let wait = before.map_or(RETRY, |(_, wait)| (wait * 2).min(RETRY_MAX));
                tracing::warn!(file = entry.name, error, retry_secs = wait.as_secs(), "a manifest is not applied; trying again");
                self.applier.tell(&entry.name, &error).await;
                Some((Instant::now() + wait, wait))
            }
        };
        self.known.insert(entry.path, Known { stamp: entry.stamp, retry });
    }
}
