//! Bounds the length of the log: takes a snapshot after enough bytes or time, and purges entries that no follower is likely to need.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior};

use super::core::Core;
use super::options::Upkeep;
use crate::error::StoreError;

/// What Raft says of its log.
#[derive(Clone, Copy, Debug)]
struct Positions {
    applied: u64,
    snapshot: u64,
    purged: u64,
}

/// Looks at the log as often as at the space.
pub(super) async fn keep_log(core: Arc<Core>, upkeep: Upkeep) {
    let mut period = tokio::time::interval(upkeep.space_every);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taken = (0, Instant::now());
    loop {
        period.tick().await;
        if let Err(error) = look(&core, &upkeep, &mut taken).await {
            tracing::debug!(%error, "the log is left as it is");
        }
    }
}

/// `taken`: the newest snapshot that is known, and when it was seen or asked for.
async fn look(core: &Core, upkeep: &Upkeep, taken: &mut (u64, Instant)) -> Result<(), StoreError> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Io(format!("raft: {error}"));
    let raft = core.raft()?;
    let positions = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index());
        Positions { applied: index(metrics.last_applied), snapshot: index(metrics.snapshot), purged: index(metrics.purged) }
    };
    let now = Instant::now();
    if taken.0 != positions.snapshot {
        *taken = (positions.snapshot, now);
    }
    let sizes = core.log_sizes.lock().clone();
    let (written, dispensable) = {
        let sizes = sizes.lock();
        (sizes.bytes_after(positions.snapshot), sizes.dispensable(upkeep.log.kept, now))
    };
    let old = now.saturating_duration_since(taken.1) >= upkeep.log.snapshot_age;
    if positions.applied > positions.snapshot && (old || written >= upkeep.log.snapshot_bytes) {
        taken.1 = now;
        // While one is built this does nothing.
        raft.trigger().snapshot().await.map_err(|error| failed(&error))?;
    }
    let upto = dispensable.map(|index| index.min(positions.snapshot));
    if let Some(upto) = upto.filter(|upto| *upto > positions.purged) {
        raft.trigger().purge_log(upto).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}
