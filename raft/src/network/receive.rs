//! Assembles a snapshot directory from messages.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use trireme_proto::{peer, store};

use crate::blocking::blocking;
use crate::error::StoreError;
use crate::snapshot::{DATA, SnapshotDir, checked_path, remove_if_present};
use crate::types::{Vote, require_vote};

/// A directory that is being filled; removed again unless it was completed.
struct Incoming {
    path: PathBuf,
    complete: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.complete {
            let _ = remove_if_present(&self.path);
        }
    }
}

/// Receives into the new directory `path`; returns the sender's vote and the verified snapshot.
pub(crate) async fn receive_snapshot(
    path: &Path,
    cluster_id: u64,
    mut messages: tonic::Streaming<peer::SnapshotMessage>,
) -> Result<(Vote, SnapshotDir), StoreError> {
    use peer::snapshot_message::Part;
    let broken = |what: &str| StoreError::Invalid(format!("snapshot stream: {what}"));
    let first = messages.message().await.map_err(|status| StoreError::io("snapshot stream", status))?;
    let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
        return Err(broken("no header"));
    };
    let vote = require_vote(header.vote.as_ref())?;
    let manifest = header.manifest.ok_or_else(|| broken("no manifest"))?;
    if manifest.cluster_id != cluster_id {
        return Err(broken("it is of another cluster"));
    }
    let mut incoming = Incoming { path: path.to_owned(), complete: false };
    let targets = create_files(path, &manifest)?;
    let mut open: Option<(u32, File, u64)> = None;
    while let Some(message) = messages.next().await {
        let message = message.map_err(|status| StoreError::io("snapshot stream", status))?;
        let Some(Part::Chunk(chunk)) = message.part else { return Err(broken("unexpected message")) };
        if crc32c::crc32c(&chunk.data) != chunk.crc32c {
            return Err(broken("a chunk fails its checksum"));
        }
        let (mut file, at) = match open.take() {
            Some((index, file, at)) if index == chunk.file => (file, at),
            _ => {
                let target = targets.get(chunk.file as usize).ok_or_else(|| broken("no such file"))?;
                (File::options().write(true).open(target).map_err(|error| StoreError::io(target.display(), error))?, 0)
            }
        };
        if at != chunk.offset {
            return Err(broken("a chunk is missing"));
        }
        let end = at + chunk.data.len() as u64;
        let (index, data) = (chunk.file, chunk.data);
        file = blocking(move || file.write_all(&data).map(|()| file)).await?.map_err(|error| StoreError::io("snapshot", error))?;
        open = Some((index, file, end));
    }
    drop(open);
    let directory = path.to_owned();
    let snapshot = blocking(move || SnapshotDir::seal_received(&directory, manifest)).await??;
    incoming.complete = true;
    Ok((vote, snapshot))
}

fn create_files(path: &Path, manifest: &store::SnapshotManifest) -> Result<Vec<PathBuf>, StoreError> {
    let data = path.join(DATA);
    let create = |name: &str| -> Result<PathBuf, StoreError> {
        let target = checked_path(&data, name)?;
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|error| StoreError::io(parent.display(), error))?;
        }
        File::create_new(&target).map_err(|error| StoreError::io(target.display(), error))?;
        Ok(target)
    };
    fs::create_dir_all(&data).map_err(|error| StoreError::io(data.display(), error))?;
    manifest.files.iter().map(|file| create(&file.path)).collect()
}
