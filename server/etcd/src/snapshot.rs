//! The stream behind `etcdctl snapshot save`: a backup as `trireme snapshot` takes it, with etcd's checksum at its end.
//!
//! It is everything, hidden keys too: their Secrets, and the cluster's own keys, are sealed in it as they are in the store.

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::Status;
use trireme_proto::etcd;
use trireme_raft::backup::{Backup, EtcdTail};

use crate::VERSION;
use crate::backend::Backend;
use crate::error::status;

/// The pieces of a snapshot.
pub(crate) type SnapshotStream = BoxStream<'static, Result<etcd::SnapshotResponse, Status>>;

/// The part of the snapshot that is still to be sent.
enum Rest {
    Archive(Box<Backup>, EtcdTail),
    Nothing,
}

/// Begins a snapshot of what was acknowledged so far, from this member's own state.
pub(crate) async fn stream(backend: &Backend) -> Result<SnapshotStream, Status> {
    let backup = backend.store().backup().await.map_err(status)?;
    let header = backend.header(backup.header().revision);
    let rest = Rest::Archive(Box::new(backup), EtcdTail::default());
    let pieces = futures::stream::unfold(rest, move |rest| async move {
        let Rest::Archive(mut backup, mut tail) = rest else { return None };
        let answer = |blob: bytes::Bytes, remaining_bytes: u64| {
            Ok(etcd::SnapshotResponse { header: Some(header), remaining_bytes, blob, version: VERSION.to_owned() })
        };
        match backup.next().await {
            Some(Ok(piece)) => {
                tail.update(&piece);
                // The remaining size is unknown until everything is read: report at least the size of the checksum.
                let least = tail.to_bytes().len() as u64;
                Some((answer(piece, least), Rest::Archive(backup, tail)))
            }
            Some(Err(error)) => Some((Err(status(error)), Rest::Nothing)),
            None => Some((answer(tail.to_bytes().into(), 0), Rest::Nothing)),
        }
    });
    Ok(pieces.boxed())
}
