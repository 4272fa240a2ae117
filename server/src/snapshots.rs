//! Backups as files in a folder: saving, proving, listing, pruning.
//!
//! Owns names, modes and the order of things on disk: a file has its final name only once it is complete, synced, and was restored
//! into a store of its own for a moment and compared. What is in an archive is `trireme_raft::backup`'s. Names follow k3s
//! (<https://docs.k3s.io/cli/etcd-snapshot>): `on-demand-NODE-TIME` by hand, `etcd-snapshot-NODE-TIME` on schedule.

mod endpoint;
mod schedule;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use trireme_api::admin::Snapshot;
use trireme_proto::store::BackupHeader;
use trireme_raft::DiskEngines;
use trireme_raft::backup::{Backup, BackupReader, BackupSummary, verify};

pub use endpoint::Snapshots;
pub use schedule::Schedule;

/// The prefix of the names of snapshots that were taken on demand.
pub const ON_DEMAND: &str = "on-demand";
/// How a scheduled one's does.
pub const SCHEDULED: &str = "etcd-snapshot";

/// Ends the name of a file that is being written.
const PARTIAL: &str = ".partial";
/// Begins the name of the folder of a proof.
const PROOF: &str = ".proof-";

/// Why a snapshot cannot be saved, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The folder, or a file in it.
    #[error("snapshot {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The store, or the archive.
    #[error("snapshot {name}: {source}")]
    Store {
        /// Which.
        name: String,
        /// Why.
        source: trireme_raft::StoreError,
    },
    /// A name that is no file name.
    #[error("snapshot name {0:?}: expected letters, digits, '-', '_' and '.', not beginning with a dot")]
    Name(String),
    /// One at a time.
    #[error("another snapshot is being saved")]
    Busy,
}

/// A folder of snapshots.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> SnapshotError {
    let path = path.display().to_string();
    move |source| SnapshotError::File { path: path.clone(), source }
}

/// `BASE-NODE-TIME`.
pub fn name(base: &str, node: &str, now: Timestamp) -> Result<String, SnapshotError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if base.is_empty() || base.starts_with('.') || base.len() > 128 || !base.chars().all(good) {
        return Err(SnapshotError::Name(base.to_owned()));
    }
    Ok(format!("{base}-{node}-{}", now.as_second()))
}

// === impl Folder ===

impl Folder {
    /// This one; made when something is saved.
    pub fn new(path: impl Into<PathBuf>) -> Folder {
        Folder { path: path.into() }
    }

    /// Writes, syncs, proves, and only then names the file.
    pub async fn save(&self, name: &str, archive: Backup) -> Result<Snapshot, SnapshotError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(file_error(&self.path))?;
        save_to(&self.path.join(name), archive).await
    }

    /// All snapshots, the newest last.
    pub fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(file_error(&self.path))?,
        };
        let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file() && !is_hidden(path));
        let mut snapshots: Vec<Snapshot> = files.map(|path| look_at(&path)).collect();
        snapshots.sort_by(|a, b| (a.created_unix_ms, &a.name).cmp(&(b.created_unix_ms, &b.name)));
        Ok(snapshots)
    }

    /// Removes all but the newest `retention` of those whose names begin with `base`. Returns what was removed. A file that is no
    /// snapshot is neither counted nor removed.
    pub fn prune(&self, base: &str, retention: usize) -> Result<Vec<Snapshot>, SnapshotError> {
        let mut candidates = self.list()?;
        candidates.retain(|snapshot| snapshot.problem.is_none() && snapshot.name.starts_with(base));
        candidates.truncate(candidates.len().saturating_sub(retention));
        for snapshot in &candidates {
            fs::remove_file(&snapshot.location).map_err(file_error(Path::new(&snapshot.location)))?;
        }
        Ok(candidates)
    }

    /// Removes what a process that was killed while saving left behind. No save may be running.
    pub fn sweep(&self) {
        for path in fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let removed = match (name.starts_with(PROOF), name.starts_with('.') && name.ends_with(PARTIAL)) {
                (true, _) => fs::remove_dir_all(&path),
                (_, true) => fs::remove_file(&path),
                _ => Ok(()),
            };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "cannot remove the rest of an unfinished snapshot");
            }
        }
    }
}

/// Writes, syncs, proves, and only then names the file `target`.
pub async fn save_to(target: &Path, archive: Backup) -> Result<Snapshot, SnapshotError> {
    let partial = beside(target, ".", PARTIAL);
    let unfinished = Unfinished(partial.clone());
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = private_file(&partial)?;
    let mut sink = tokio::fs::File::from_std(file);
    let written = archive.write_to(&mut sink).await.map_err(|source| SnapshotError::Store { name: name.clone(), source })?;
    sink.sync_all().await.map_err(file_error(&partial))?;
    drop(sink);
    finish(partial, target.to_owned(), Some(written)).await?;
    drop(unfinished);
    Ok(look_at(target))
}

/// A new file that only its owner reads.
pub fn private_file(path: &Path) -> Result<File, SnapshotError> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(file_error(path))
}

/// Proves a complete, synced file and gives it its name.
pub async fn finish(partial: PathBuf, target: PathBuf, expected: Option<BackupSummary>) -> Result<BackupSummary, SnapshotError> {
    let work = tokio::task::spawn_blocking(move || {
        let summary = prove(&partial)?;
        if expected.is_some_and(|expected| expected != summary) {
            let source = trireme_raft::StoreError::Corrupt("what was restored from it is not what was saved".into());
            return Err(SnapshotError::Store { name: target.display().to_string(), source });
        }
        fs::rename(&partial, &target).map_err(file_error(&target))?;
        let folder = target.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(file_error(folder))?;
        Ok(summary)
    });
    work.await.map_err(|error| SnapshotError::File { path: "proof".into(), source: io::Error::other(error) })?
}

/// Restores an archive into a store beside it, compares, and removes that store again.
fn prove(archive: &Path) -> Result<BackupSummary, SnapshotError> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |source| SnapshotError::Store { name: name.clone(), source };
    let reader = BackupReader::open(BufReader::new(File::open(archive).map_err(file_error(archive))?)).map_err(failed)?;
    let folder = beside(archive, PROOF, "");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(file_error(&folder))?;
    }
    let proof = verify(reader, &DiskEngines, &folder).map_err(failed);
    let removed = fs::remove_dir_all(&folder);
    let summary = proof?;
    removed.map_err(file_error(&folder))?;
    Ok(summary)
}

/// A file's header.
pub fn header_of(path: &Path) -> Result<BackupHeader, SnapshotError> {
    let file = File::open(path).map_err(file_error(path))?;
    let reader = BackupReader::open(BufReader::new(file));
    let reader = reader.map_err(|source| SnapshotError::Store { name: path.display().to_string(), source })?;
    Ok(reader.header().clone())
}

/// Reads the description of a snapshot file from its header.
pub fn look_at(path: &Path) -> Snapshot {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let size_bytes = fs::metadata(path).map_or(0, |meta| meta.len());
    let (header, problem) = match header_of(path) {
        Ok(header) => (header, None),
        Err(SnapshotError::Store { source, .. }) => (BackupHeader::default(), Some(source.to_string())),
        Err(error) => (BackupHeader::default(), Some(error.to_string())),
    };
    Snapshot {
        name,
        location: path.display().to_string(),
        size_bytes,
        created_unix_ms: header.created_unix_ms,
        revision: header.revision,
        cluster_id: format!("{:016x}", header.cluster_id),
        problem,
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
}

/// `<prefix><name><suffix>` in the same folder.
fn beside(path: &Path, prefix: &str, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{prefix}{name}{suffix}"))
}

/// Removes a file that did not become a snapshot.
pub struct Unfinished(pub PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may have got its name already.
        let _ = fs::remove_file(&self.0);
    }
}
