//! Image tarballs: what lies in `<data-dir>/agent/images` is in the container runtime before pods that need it start, and soon after a
//! file appears.
//!
//! Owns that folder's meaning, the reading of archives (OCI layouts and docker archives, plain or gzipped) and how their content
//! gets into containerd: through its content store, leases and image names on the socket that CRI is spoken on. Must not pull, and
//! must not run a runtime's binary. If the runtime lacks these services, the log says so; pods there need a registry.
//!
//! A file is read as a stream, twice: once to learn what is in it (kept: names, digests, the small JSON documents), once to hand over what the
//! runtime does not have. What was imported is remembered in the runtime itself, as a label of the image: there is no file of
//! ours to be wrong. Removing a tarball removes nothing from the runtime.
//!
//! Answers to <https://docs.k3s.io/installation/airgap> (the folder) and <https://github.com/opencontainers/image-spec> (the layout).

mod archive;
mod containerd;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod import;
mod layout;
mod name;
mod watch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{containerd::Containerd, import::import, watch::Folder};

/// How long to wait before what the runtime refused is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The names of the images in an archive, for a machine of this architecture (`amd64`, `arm64`). Touches no file and no runtime, so that
/// it can be fuzzed: an archive is untrusted input.
pub fn image_names(archive: impl std::io::Read + Send + 'static, architecture: &str) -> Result<Vec<String>, Error> {
    let archive = archive::Archive::read_from(archive, Path::new(""))?;
    let plan = layout::plan(&archive, architecture)?;
    Ok(plan.images.into_iter().flat_map(|image| image.names).collect())
}

/// Why a tarball was not imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no image archive, or a damaged one. Only another file mends that.
    #[error("{0}")]
    Archive(String),
    /// The file could not be read.
    #[error("read: {0}")]
    Read(#[from] std::io::Error),
    /// The container runtime did not take it; it is tried again.
    #[error("container runtime: {call}: {message}")]
    Runtime {
        /// The call that failed.
        call: &'static str,
        /// What the runtime said.
        message: String,
        /// Whether the runtime did not answer at all.
        down: bool,
    },
}

impl Error {
    /// Whether the same file may succeed later.
    fn is_retryable(&self) -> bool {
        matches!(self, Error::Runtime { .. })
    }
}

/// Which folder, into which runtime.
#[derive(Debug, Clone)]
pub struct ImagesOptions {
    /// Where the tarballs are; made if it is missing.
    pub folder: PathBuf,
    /// Socket of the container runtime.
    pub runtime_endpoint: PathBuf,
}

/// The names of the images that could not be pulled again, because a tarball brought them.
///
/// # Errors
/// The runtime does not answer.
pub async fn pinned(runtime_endpoint: PathBuf) -> Result<BTreeSet<String>, Error> {
    Containerd::new(runtime_endpoint).pinned().await
}

/// Imports what is in the folder, says so through `first_pass`, and goes on with what appears there until cancelled. A runtime that does
/// not answer delays no pod: the first pass ends then, and the import goes on in the background.
pub async fn run(options: ImagesOptions, first_pass: oneshot::Sender<()>, cancel: CancellationToken) {
    let folder = match Folder::open(&options.folder) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::error!("image tarballs in {} are not imported: {error}", options.folder.display());
            return;
        }
    };
    let runtime = Containerd::new(options.runtime_endpoint);
    let mut first_pass = Some(first_pass);
    let mut pending = folder.scan();
    let mut pause = FIRST_PAUSE;
    loop {
        pending = tokio::select! {
            left = import_all(&runtime, pending) => left,
            () = cancel.cancelled() => return,
        };
        if let Some(done) = first_pass.take() {
            // The receiver may have been dropped.
            let _ = done.send(());
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = folder.changed() => pending.extend(changed),
            () = tokio::time::sleep(pause), if !pending.is_empty() => pause = (pause * 2).min(LONGEST_PAUSE),
        }
        if pending.is_empty() {
            pause = FIRST_PAUSE;
        }
    }
}

/// Imports each; returns those that are worth another try.
async fn import_all(runtime: &Containerd, files: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut again = BTreeSet::new();
    let mut down = false;
    for file in files {
        if down {
            again.insert(file);
            continue;
        }
        let Err(error) = import(runtime, &file).await else { continue };
        down = matches!(error, Error::Runtime { down: true, .. });
        if error.is_retryable() {
            tracing::warn!("image tarball {}: not imported yet: {error}", file.display());
            again.insert(file);
        } else if file.exists() {
            tracing::error!("image tarball {}: not imported: {error}", file.display());
        }
    }
    again
}

/// What the folder may hold: `.tar`, `.tar.gz`, `.tgz`. Names with a leading dot are files that are still being written.
fn is_tarball(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && [".tar", ".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending))
}
