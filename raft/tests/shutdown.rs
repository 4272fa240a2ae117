//! A store that was shut down keeps nothing open.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Ca, Seat, log_to_stderr, put, until};
use trireme_raft::engine::{Durability, Engine, Read, Table, WriteBatch};
use trireme_raft::{Engines, MemoryEngines, StoreError, WatchError, WhenEmpty};

/// Engines that take their time to close, as RocksDB does while it compacts, and count those that are open.
struct SlowToClose {
    inner: MemoryEngines,
    open: Arc<AtomicUsize>,
}

struct Counted {
    inner: Arc<dyn Engine>,
    open: Arc<AtomicUsize>,
}

// === impl SlowToClose ===

impl SlowToClose {
    fn counted(&self, inner: Arc<dyn Engine>) -> Arc<dyn Engine> {
        self.open.fetch_add(1, Ordering::SeqCst);
        Arc::new(Counted { inner, open: self.open.clone() })
    }
}

impl Engines for SlowToClose {
    fn open_log(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.counted(self.inner.open_log(directory)?))
    }

    fn open_state(&self, directory: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(self.counted(self.inner.open_state(directory)?))
    }

    fn restore_state(&self, checkpoint: &Path, directory: &Path) -> Result<(), StoreError> {
        self.inner.restore_state(checkpoint, directory)
    }

    fn watch_ring_bytes(&self) -> usize {
        self.inner.watch_ring_bytes()
    }
}

// === impl Counted ===

impl Drop for Counted {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(300));
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Engine for Counted {
    fn view(&self) -> Box<dyn Read + '_> {
        self.inner.view()
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        self.inner.write(batch, durability)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }

    fn checkpoint(&self, directory: &Path, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.checkpoint(directory, table, key)
    }

    fn sync_delay(&self) -> Duration {
        self.inner.sync_delay()
    }

    fn reclaim(&self) -> Result<(), StoreError> {
        self.inner.reclaim()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn live_bytes(&self) -> u64 {
        self.inner.live_bytes()
    }
}

/// Once `shutdown` has returned, a process may end or open the folder again: a RocksDB thread that is still at work would make the first
/// crash and the second fail. Handles that remain hold nothing open.
#[tokio::test(flavor = "multi_thread")]
async fn f9_every_database_is_closed_when_shutdown_returns() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let engines = Arc::new(SlowToClose { inner: MemoryEngines::default(), open: open.clone() });
    let mut seat = Seat::new(&Ca::new(), "a", base.path());
    let store = seat.open(engines, WhenEmpty::Initialize).await;
    until(&store, "leadership", |status| status.leadership.is_some()).await;
    let mut watch = store.watch("k/".into(), "k0".into(), 0).unwrap();
    store.txn(put("k/1", "one"), None).await.unwrap();
    assert_eq!(open.load(Ordering::SeqCst), 2, "log and state");

    store.shutdown().await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
    assert!(matches!(watch.next().await, Err(WatchError::Shutdown)));
    let everything = trireme_proto::etcd::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    assert!(matches!(store.range(&everything), Err(StoreError::Shutdown)));
}

/// What was opened before the start failed is closed too.
#[tokio::test(flavor = "multi_thread")]
async fn f9_every_database_is_closed_when_a_start_fails() {
    log_to_stderr();
    let base = tempfile::tempdir().unwrap();
    let open = Arc::new(AtomicUsize::new(0));
    let engines: Arc<SlowToClose> = Arc::new(SlowToClose { inner: MemoryEngines::default(), open: open.clone() });
    let ca = Ca::new();
    let mut seat = Seat::new(&ca, "a", base.path());
    let store = seat.open(engines.clone(), WhenEmpty::Initialize).await;
    until(&store, "leadership", |status| status.leadership.is_some()).await;
    // An acknowledged write comes after the membership in the log, so the state now knows whose folder it is.
    store.txn(put("k/1", "one"), None).await.unwrap();
    store.shutdown().await;
    drop(store);
    // Another server's key: the folder is not its own.
    let mut stranger = Seat::new(&ca, "a", base.path());
    let refused = trireme_raft::Store::open(stranger.options(engines, WhenEmpty::Refuse)).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{:?}", refused.err());
    assert_eq!(open.load(Ordering::SeqCst), 0);
}
