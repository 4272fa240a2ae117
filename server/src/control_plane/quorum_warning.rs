//! Warns the operator of a cluster of two servers: it stops when either one fails, twice as likely as a cluster of one.

use std::time::Duration;

use trireme_raft::Store;

/// A cluster of three is one of two for the moment in which it grows.
const SETTLED: Duration = Duration::from_secs(30);

/// Warns once, some time after the start, if there are two voters then.
pub async fn warn(store: Store) {
    tokio::time::sleep(SETTLED).await;
    if store.status().borrow().voters.len() == 2 {
        tracing::warn!("this cluster has two servers: it stands still when either of them fails; add a third one, or keep only one");
    }
}
