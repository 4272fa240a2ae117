//! Snapshots as directories: a checkpoint of the state engine, and a manifest with a checksum per file.
//!
//! Owns naming, verification and the fsyncs that make a directory appear whole or not at all. A snapshot is
//! never held in memory (design D10); it is passed round as a handle, and a superseded directory is removed
//! when its last handle goes. Must not know what is inside the files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use sha2::{Digest, Sha256};
use trireme_proto::store;

use crate::error::StoreError;
use crate::types::{SnapshotMeta, decode_stored_membership, log_id_from_proto};

/// Name of the manifest inside a snapshot directory. It is written last.
const MANIFEST: &str = "MANIFEST";
/// Marks a snapshot that came from another member: unlike one made here, it may reach beyond the own log.
const RECEIVED: &str = "RECEIVED";
/// Ending of an engine's table files. Only they are immutable: an engine appends to its manifests and logs.
const TABLE_SUFFIX: &str = ".sst";
/// Folder of the checkpoint inside a snapshot directory.
pub(crate) const DATA: &str = "data";

/// The format whose manifest carries no checksum of its own. Still read.
const FORMAT_WITHOUT_CHECKSUM: u32 = 1;

/// What tells one file from all others that exist: hard links to the same file share it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
}

/// A complete snapshot on disk. Clones share the directory.
#[derive(Clone, Debug)]
pub struct SnapshotDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    manifest: store::SnapshotManifest,
    obsolete: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a superseded snapshot");
        }
    }
}

// === impl Identity ===

impl Identity {
    fn of(path: &Path) -> io::Result<Identity> {
        let meta = fs::metadata(path)?;
        Ok(Identity { device: meta.dev(), inode: meta.ino(), size: meta.len() })
    }
}

// === impl SnapshotDir ===

impl SnapshotDir {
    /// Describes the files under `path/data`, writes the manifest and fsyncs everything. Of a table file that is in snapshot `before` too, the
    /// checksums are taken from there: they say what it held when it was new, and only what is new is read.
    pub(crate) fn seal(
        path: &Path,
        mut manifest: store::SnapshotManifest,
        before: Option<&SnapshotDir>,
    ) -> Result<SnapshotDir, StoreError> {
        let known = before.map(SnapshotDir::tables).unwrap_or_default();
        let data = path.join(DATA);
        let mut files = Vec::new();
        list_files(&data, &data, &mut files).map_err(|error| StoreError::io(data.display(), error))?;
        files.sort();
        manifest.format = store::FORMAT_SNAPSHOT;
        manifest.files = files
            .iter()
            .map(|name| match known.get(name) {
                Some((file, identity)) if *identity == Identity::of(&data.join(name))? => Ok(file.clone()),
                _ => describe(&data, name),
            })
            .collect::<io::Result<_>>()
            .map_err(|error| StoreError::io(data.display(), error))?;
        manifest.crc32c = manifest_crc(&manifest);
        Self::write_manifest(path, &manifest)?;
        Ok(SnapshotDir::from_parts(path.to_owned(), manifest))
    }

    /// Checks received files against the leader's manifest, then writes the manifest.
    pub(crate) fn seal_received(path: &Path, manifest: store::SnapshotManifest) -> Result<SnapshotDir, StoreError> {
        verify(path, &manifest)?;
        File::create(path.join(RECEIVED)).map_err(|error| StoreError::io(path.display(), error))?;
        Self::write_manifest(path, &manifest)?;
        Ok(SnapshotDir::from_parts(path.to_owned(), manifest))
    }

    /// Opens a directory that was sealed before, and checks every file.
    pub(crate) fn open(path: &Path) -> Result<SnapshotDir, StoreError> {
        let manifest = fs::read(path.join(MANIFEST)).map_err(|error| StoreError::io(path.display(), error))?;
        let manifest = store::SnapshotManifest::decode(manifest.as_slice())
            .map_err(|error| StoreError::Corrupt(format!("{}: {error}", path.display())))?;
        verify(path, &manifest)?;
        Ok(SnapshotDir::from_parts(path.to_owned(), manifest))
    }

    /// Moves the directory to `target` (replacing what is there) so that it survives a crash whole.
    pub(crate) fn rename(self, target: &Path) -> Result<SnapshotDir, StoreError> {
        let failed = |error: io::Error| StoreError::io(target.display(), error);
        if self.inner.path != target {
            remove_if_present(target).map_err(failed)?;
            fs::rename(&self.inner.path, target).map_err(failed)?;
            if let Some(parent) = target.parent() {
                sync_dir(parent).map_err(failed)?;
            }
        }
        Ok(SnapshotDir::from_parts(target.to_owned(), self.inner.manifest.clone()))
    }

    /// Removes the directory when the last handle is dropped.
    pub(crate) fn supersede(self) {
        self.inner.obsolete.store(true, Ordering::Release);
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where the checkpoint is.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.inner.path.join(DATA)
    }

    /// What is in it.
    #[must_use]
    pub fn manifest(&self) -> &store::SnapshotManifest {
        &self.inner.manifest
    }

    /// Whether it came from another member.
    pub(crate) fn is_received(&self) -> bool {
        self.inner.path.join(RECEIVED).exists()
    }

    pub(crate) fn meta(&self) -> Result<SnapshotMeta, StoreError> {
        let manifest = self.manifest();
        Ok(SnapshotMeta {
            last_log_id: manifest.last_log_id.as_ref().map(log_id_from_proto),
            last_membership: decode_stored_membership(&manifest.membership)?,
        })
    }

    /// Its table files, which never change, and which files they are. For as long as this handle lives, no other file can be the same.
    fn tables(&self) -> HashMap<String, (store::SnapshotFile, Identity)> {
        let tables = self.manifest().files.iter().filter(|file| file.path.ends_with(TABLE_SUFFIX));
        let identity = |file: &store::SnapshotFile| Identity::of(&self.data().join(&file.path)).ok();
        let described = |file: &store::SnapshotFile| Some((file.path.clone(), (file.clone(), identity(file)?)));
        tables.filter_map(described).filter(|(_, (file, identity))| file.size == identity.size).collect()
    }

    fn from_parts(path: PathBuf, manifest: store::SnapshotManifest) -> SnapshotDir {
        SnapshotDir { inner: Arc::new(Inner { path, manifest, obsolete: AtomicBool::new(false) }) }
    }

    fn write_manifest(path: &Path, manifest: &store::SnapshotManifest) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            sync_tree(&path.join(DATA))?;
            fs::write(path.join(MANIFEST), manifest.encode_to_vec())?;
            File::open(path.join(MANIFEST))?.sync_all()?;
            sync_dir(path)?;
            path.parent().map_or(Ok(()), sync_dir)
        };
        write().map_err(|error| StoreError::io(path.display(), error))
    }
}

/// A manifest path that stays inside its directory, or an error.
pub(crate) fn checked_path(base: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let relative = Path::new(name);
    let plain = !name.is_empty() && relative.components().all(|part| matches!(part, Component::Normal(_)));
    match plain {
        true => Ok(base.join(relative)),
        false => Err(StoreError::Invalid(format!("snapshot names a file outside its directory: {name:?}"))),
    }
}

/// fsyncs a directory, so that names created or renamed in it survive a crash.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// fsyncs what a directory lies in, up to the root, so that it can still be found: its own sync says nothing of its name.
pub(crate) fn sync_ancestors(path: &Path) -> io::Result<()> {
    for ancestor in fs::canonicalize(path)?.ancestors().skip(1) {
        match sync_dir(ancestor) {
            // A directory that this process may not read was not made by it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

/// Removes a directory or a file that may not exist.
pub(crate) fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies `from` to the new directory `to`; table files of a checkpoint never change, so they are linked.
#[cfg(feature = "rocksdb")]
pub(crate) fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else if entry.file_name().to_str().is_some_and(|name| name.ends_with(TABLE_SUFFIX)) {
            fs::hard_link(entry.path(), &target).or_else(|_| fs::copy(entry.path(), &target).map(drop))?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    sync_tree(to)
}

/// fsyncs everything below a directory.
pub(crate) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_tree(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    sync_dir(path)
}

fn list_files(base: &Path, dir: &Path, into: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list_files(base, &path, into)?;
        } else if let Some(name) = path.strip_prefix(base).ok().and_then(Path::to_str) {
            into.push(name.to_owned());
        }
    }
    Ok(())
}

fn describe(base: &Path, name: &str) -> io::Result<store::SnapshotFile> {
    let mut file = File::open(base.join(name))?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut size, mut crc, mut sha) = (0u64, 0u32, Sha256::new());
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        sha.update(&buffer[..read]);
    }
    Ok(store::SnapshotFile { path: name.to_owned(), size, crc32c: crc, sha256: sha.finalize().to_vec().into() })
}

fn manifest_crc(manifest: &store::SnapshotManifest) -> u32 {
    crc32c::crc32c(&store::SnapshotManifest { crc32c: 0, ..manifest.clone() }.encode_to_vec())
}

fn verify(path: &Path, manifest: &store::SnapshotManifest) -> Result<(), StoreError> {
    match manifest.format {
        store::FORMAT_SNAPSHOT if manifest.crc32c == manifest_crc(manifest) => {}
        store::FORMAT_SNAPSHOT => return Err(StoreError::Corrupt("the snapshot's manifest fails its checksum".into())),
        FORMAT_WITHOUT_CHECKSUM if manifest.crc32c == 0 => {}
        unknown => return Err(StoreError::Corrupt(format!("snapshot of unknown format {unknown}"))),
    }
    let data = path.join(DATA);
    for expected in &manifest.files {
        checked_path(&data, &expected.path)?;
        let found =
            describe(&data, &expected.path).map_err(|error| StoreError::Corrupt(format!("snapshot file {}: {error}", expected.path)))?;
        if found != *expected {
            return Err(StoreError::Corrupt(format!("snapshot file {} fails its checksum", expected.path)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
