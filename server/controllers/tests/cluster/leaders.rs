//! Leaderships one after the other, as the fake API server deposes them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trireme_client::Fence;
use trireme_controllers::Controllers;

use crate::fake_api::FakeApi;

/// A deposed leader is followed by the next.
pub async fn lead(controllers: Arc<Controllers>, api: FakeApi, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        let (term, stop) = (api.term(), cancel.child_token());
        let (leader, until) = (Arc::clone(&controllers), stop.clone());
        let revision = api.revision();
        let work = tokio::spawn(async move { leader.lead(Fence { term, node_id: 1 }, revision, until).await });
        let mut changes = api.changes();
        while api.term() == term && !cancel.is_cancelled() {
            tokio::select! {
                changed = changes.changed() => changed.unwrap(),
                () = cancel.cancelled() => {}
            }
        }
        stop.cancel();
        work.await.unwrap();
    }
}
