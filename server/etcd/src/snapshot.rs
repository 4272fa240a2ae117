//! The stream behind `etcdctl snapshot save`.

use futures::stream::BoxStream;
use tonic::Status;
use trireme_proto::etcd;

use crate::backend::Backend;

/// The blobs of a snapshot.
pub(crate) type SnapshotStream = BoxStream<'static, Result<etcd::SnapshotResponse, Status>>;

/// Begins a snapshot of what this member has applied.
pub(crate) async fn stream(_backend: &Backend) -> Result<SnapshotStream, Status> {
    Err(Status::unimplemented("etcdserver: this member gives no snapshot to etcd clients"))
}
