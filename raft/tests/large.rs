//! What is large must not be held in memory: a watcher that stalled through a great many events, and a great snapshot.
//! Small by default; `ops/test chaos` makes it a million events (`TRIREME_WATCH_EVENTS`) and 1 GiB
//! (`TRIREME_SNAPSHOT_MIB`).

#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use bytes::Bytes;
use cluster::{Ca, PATIENCE, Seat, engines, log_to_stderr, until};
use trireme_proto::etcd;
use trireme_raft::{Store, WatchError, WhenEmpty};

/// Puts of one transaction.
const PUTS: usize = 500;
/// Keys that the events are about.
const KEYS: usize = 2000;
/// No batch of a watch is larger: what the ring of recent events holds, at 256 bytes an event, and the rest of a transaction.
const BATCH: usize = (4 << 20) / 256 + PUTS;
/// Of one value of the snapshot.
const BLOCK_BYTES: usize = 64 << 10;
/// Values written at the same time.
const AT_ONCE: usize = 16;
/// What moving a snapshot may add to a process that holds both ends of it.
const TRANSFER_KIB: u64 = 192 << 10;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn puts(keys: impl Iterator<Item = (String, Bytes)>) -> etcd::TxnRequest {
    let put = |(key, value): (String, Bytes)| {
        let put = etcd::PutRequest { key: key.into(), value, ..Default::default() };
        etcd::RequestOp { request: Some(etcd::request_op::Request::RequestPut(put)) }
    };
    etcd::TxnRequest { success: keys.map(put).collect(), ..Default::default() }
}

async fn founder(seat: &mut Seat) -> Store {
    let store = seat.open(engines(), WhenEmpty::Initialize).await;
    until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_watcher_finds_every_event_or_is_told_that_they_are_gone() {
    log_to_stderr();
    let events = number("TRIREME_WATCH_EVENTS", 20_000);
    let base = tempfile::tempdir().unwrap();
    let mut seat = Seat::new(&Ca::new(), "a", base.path());
    let store = founder(&mut seat).await;
    let mut patient = store.watch("k/".into(), "k0".into(), 0).unwrap();
    let mut late = store.watch("k/".into(), "k0".into(), 0).unwrap();
    let first = patient.next_revision();
    for start in (0..events).step_by(PUTS) {
        let keys = (start..start + PUTS).map(|number| (format!("k/{:05}", number % KEYS), Bytes::from(number.to_string())));
        store.txn(puts(keys), None).await.unwrap();
    }

    // Every event, in order, whole transactions, in batches of bounded size.
    let (mut seen, mut revision) = (0, first - 1);
    while seen < events {
        let batch = tokio::time::timeout(PATIENCE, patient.next()).await.unwrap().unwrap();
        assert!(batch.events.len() <= BATCH, "{} events in one batch", batch.events.len());
        for event in batch.events.iter() {
            let kv = event.kv.as_ref().unwrap();
            assert_eq!(kv.value, seen.to_string().as_bytes());
            assert_eq!(kv.mod_revision, first + i64::try_from(seen / PUTS).unwrap());
            revision = kv.mod_revision;
            seen += 1;
        }
        assert!(batch.revision >= revision);
    }

    // History is compacted while this watch has read nothing: it ends as compacted, and nothing is skipped.
    store.compact(revision).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, late.next()).await.unwrap();
    assert!(matches!(told, Err(WatchError::Compacted { compact_revision }) if compact_revision == revision), "{told:?}");
    store.shutdown().await;
}

/// Nothing that could be compressed.
fn block(number: usize) -> Bytes {
    let mut bytes = vec![0u8; BLOCK_BYTES];
    let mut word = number as u64 + 1;
    for chunk in bytes.chunks_mut(8) {
        word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ 0x2545_f491_4f6c_dd1d;
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes.into()
}

/// A line of this process's status, in KiB.
fn memory_kib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    value.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_sent_in_bounded_memory() {
    log_to_stderr();
    let mebibytes = number("TRIREME_SNAPSHOT_MIB", 32);
    let blocks = (mebibytes << 20) / BLOCK_BYTES;
    let base = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let mut seats = [Seat::new(&ca, "a", base.path()), Seat::new(&ca, "b", base.path())];
    let mut options = seats[0].options(engines(), WhenEmpty::Initialize);
    // Snapshots are taken many times before the end, so that most values are in no log any more.
    (options.snapshot_every, options.log_kept) = (u64::try_from(blocks / 4).unwrap(), 1);
    let store = Store::open(options).await.unwrap();
    until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
    for start in (0..blocks).step_by(AT_ONCE) {
        let writes = (start..blocks.min(start + AT_ONCE)).map(|number| {
            let keys = std::iter::once((format!("big/{number:05}"), block(number)));
            store.txn(puts(keys), None)
        });
        for written in futures::future::join_all(writes).await {
            written.unwrap();
        }
    }

    let ticket = store.add_learner(seats[1].record()).await.unwrap();
    // From here on the peak counts.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory_kib("VmRSS");
    let follower = seats[1].open(engines(), WhenEmpty::Join(ticket)).await;
    let all = tokio::time::timeout(PATIENCE * 10, follower.wait_revision(store.revision()));
    all.await.unwrap().unwrap();
    let grown = memory_kib("VmHWM").saturating_sub(before);
    eprintln!("{mebibytes} MiB moved; memory grew from {before} KiB by {grown} KiB at most");
    assert!(grown < TRANSFER_KIB, "memory grew by {grown} KiB while {mebibytes} MiB moved");
    let request = etcd::RangeRequest { key: "big/".into(), range_end: "big0".into(), count_only: true, ..Default::default() };
    assert_eq!(follower.range(&request).unwrap().count, i64::try_from(blocks).unwrap());
    follower.shutdown().await;
    store.shutdown().await;
}
