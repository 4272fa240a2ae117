//! Watchers: each follows the store from its first revision on, at one member after another, for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use trireme_raft::{Store, StoreError, WatchError};

use super::board::{Board, Place};
use super::recorder::{Recorder, event};
use crate::history::Said;

const PAUSE: Duration = Duration::from_millis(50);

/// Runs the watchers that are placed on this host.
pub async fn host_watchers(host: usize, hosts: usize, store: Store, board: Arc<Board>, recorder: Arc<Recorder>, mut rng: StdRng) {
    loop {
        while let Some((name, place)) = board.take_watcher(host) {
            let stay = if place.wanders { Duration::from_millis(rng.random_range(200..1500)) } else { Duration::from_secs(3600) };
            let next_host = if place.wanders { rng.random_range(0..hosts) } else { host };
            let nap = if rng.random_bool(0.2) { rng.random_range(0..300) } else { 0 };
            let (store, board, recorder) = (store.clone(), board.clone(), recorder.clone());
            tokio::spawn(async move {
                let _ = tokio::time::timeout(stay, follow(&name, place, host, &store, &board, &recorder, nap)).await;
                tokio::time::sleep(PAUSE).await;
                board.leave_watcher(&name, next_host);
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows the store until the watch ends; a slow watcher sleeps after each batch.
async fn follow(name: &str, place: Place, host: usize, store: &Store, board: &Board, recorder: &Recorder, nap_ms: u64) {
    let number = recorder.watch(name, &format!("h{host}"), place.prefix, place.next);
    let end = |said: Said| {
        if let Said::Compacted(floor) = said {
            // As a client does that is told so: it lists, and watches again from the floor.
            board.reached(name, floor);
        }
        recorder.said(number, said);
    };
    let mut watch = match store.watch(Bytes::from(place.prefix), prefix_end(place.prefix), place.next) {
        Ok(watch) => watch,
        Err(StoreError::Compacted { compact_revision }) => return end(Said::Compacted(compact_revision)),
        Err(error) => return end(Said::Ended(error.to_string())),
    };
    loop {
        match watch.next().await {
            Ok(batch) => {
                board.reached(name, batch.revision + 1);
                recorder.said(number, Said::Batch(batch.revision, batch.events.iter().map(event).collect()));
            }
            Err(WatchError::Compacted { compact_revision }) => return end(Said::Compacted(compact_revision)),
            Err(error) => return end(Said::Ended(error.to_string())),
        }
        tokio::time::sleep(Duration::from_millis(nap_ms)).await;
    }
}

/// The end of the range of keys that begin with `prefix`.
#[must_use]
pub fn prefix_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}
