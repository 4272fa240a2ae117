//! One tarball into the runtime.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::{
    Error,
    archive::{Archive, Piece},
    containerd::{Containerd, Lease},
    layout::{self, Plan, Source},
};

/// Imports a file, unless the runtime has it already.
pub(crate) async fn import(runtime: &Containerd, path: &Path) -> Result<(), Error> {
    let stamp = stamp_of(path)?;
    if runtime.has_all_of(&stamp).await? {
        tracing::debug!("image tarball {}: imported before", path.display());
        return Ok(());
    }
    let file = path.to_owned();
    let (archive, plan) = blocking(move || {
        let archive = Archive::read(&file)?;
        let plan = layout::plan(&archive, layout::architecture())?;
        Ok((archive, plan))
    })
    .await?;
    let lease = runtime.lease(&format!("trireme-import-{stamp}")).await?;
    let done = hand_over(&lease, archive, &plan, &stamp).await;
    // A lease that is kept after a failure would hold content that no image uses.
    let released = lease.release().await;
    done.and(released)?;
    let names: Vec<&str> = plan.images.iter().flat_map(|i| &i.names).map(String::as_str).collect();
    for name in &names {
        runtime.shown(name).await?;
    }
    tracing::info!("image tarball {}: imported {}", path.display(), names.join(", "));
    Ok(())
}

/// Differs for every file that was ever put there: name, length, time of the last change.
fn stamp_of(path: &Path) -> Result<String, Error> {
    let metadata = fs::metadata(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let facts = format!("{name}\n{}\n{}.{:09}", metadata.size(), metadata.mtime(), metadata.mtime_nsec());
    Ok(hex::encode(&Sha256::digest(facts)[..16]))
}

async fn hand_over(lease: &Lease<'_>, archive: Archive, plan: &Plan, stamp: &str) -> Result<(), Error> {
    let mut wanted = BTreeSet::new();
    for (digest, blob) in &plan.blobs {
        if lease.adopt(digest, &blob.labels).await? {
            continue;
        }
        match &blob.source {
            Source::File(number) => drop(wanted.insert(*number)),
            Source::Made(content) => {
                let mut write = lease.write(digest, blob.size, &blob.labels);
                write.piece(content.clone()).await?;
                write.commit().await?;
            }
        }
    }
    if !wanted.is_empty() {
        stream(lease, archive, plan, wanted).await?;
    }
    let count = plan.images.iter().map(|i| i.names.len()).sum();
    for image in &plan.images {
        lease.name(&image.id, &image.target, None).await?;
        for name in &image.names {
            lease.name(name, &image.target, Some((stamp, count))).await?;
        }
    }
    Ok(())
}

/// Reads the archive once more, and writes what is wanted of it piece by piece.
async fn stream(lease: &Lease<'_>, archive: Archive, plan: &Plan, wanted: BTreeSet<usize>) -> Result<(), Error> {
    let archive = Arc::new(archive);
    let (pieces, mut incoming) = mpsc::channel(1);
    let reader = tokio::spawn(blocking({
        let archive = archive.clone();
        // A receiver that is gone has failed, or was cancelled: no more is read.
        move || archive.stream(&wanted, |piece| pieces.blocking_send(piece).is_ok())
    }));
    let mut current = None;
    while let Some(piece) = incoming.recv().await {
        let (Piece::Data(number, _) | Piece::End(number)) = &piece;
        let file = archive.file(*number);
        let labels = || plan.blobs.get(&file.digest).map(|b| b.labels.clone()).unwrap_or_default();
        let mut write = current.take().unwrap_or_else(|| lease.write(&file.digest, file.size, &labels()));
        match piece {
            Piece::Data(_, data) => {
                write.piece(data).await?;
                current = Some(write);
            }
            Piece::End(_) => write.commit().await?,
        }
    }
    reader.await.map_err(|e| Error::Archive(e.to_string()))?
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Archive(format!("reading it failed: {e}")))?
}
