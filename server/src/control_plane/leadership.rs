//! Follows Raft leadership: starts controllers and scheduler when this server leads and has caught up, stops them when it does
//! not. Losing leadership ends work, never the process.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use trireme_raft::{Fence, Store};

/// Runs `lead(fence, cancel)` for each leadership of this server, one after the other, until `cancel`.
pub async fn follow<F>(store: Store, cancel: CancellationToken, lead: impl Fn(Fence, CancellationToken) -> F)
where
    F: Future<Output = ()>,
{
    let mut status = store.status();
    loop {
        let leading = |s: &trireme_raft::StoreStatus| s.leadership.filter(|l| l.caught_up).map(|l| l.fence);
        let gained = tokio::select! {
            changed = status.wait_for(|s| leading(s).is_some()) => changed.ok().and_then(|s| leading(&s)),
            () = cancel.cancelled() => return,
        };
        // The sender is gone only when the store is: nothing is left to lead.
        let Some(fence) = gained else { return };
        tracing::info!(term = fence.term, "this server leads");
        let stop = cancel.child_token();
        let work = lead(fence, stop.clone());
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => {}
            () = async { drop(status.wait_for(|s| leading(s) != Some(fence)).await.map(drop)) } => {
                tracing::info!(term = fence.term, "this server leads no more");
                stop.cancel();
                work.await;
            }
            () = cancel.cancelled() => {
                work.await;
                return;
            }
        }
    }
}
