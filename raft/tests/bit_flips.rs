//! One flipped bit, anywhere on the disk of a real store: log, state, manifests, snapshots, member file, backup.
//!
//! Whatever it hits, the member that opens the folder afterwards either shows exactly what was acknowledged (the bit did not
//! matter, or what it broke was made again), or says that it cannot: it refuses to start, or fences its state. It
//! never panics and never shows anything else.
//!
//! `TRIREME_BIT_FLIPS` is how many bits (300), `TRIREME_SEED` which; a failure names both.

#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::{Ca, PATIENCE, Seat, engines, log_to_stderr, put, until};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use trireme_proto::etcd;
use trireme_raft::backup::BackupReader;
use trireme_raft::{Store, StoreError, WatchError, WhenEmpty};

/// Members that are checked at the same time: they mostly wait.
const AT_ONCE: usize = 4;

/// How many threads have panicked in this process.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// All that a client can find out about a store.
#[derive(Clone, PartialEq, Debug)]
struct Content {
    revision: i64,
    compacted: i64,
    /// Every key at every revision that can be read.
    past: Vec<(i64, Vec<etcd::KeyValue>)>,
    /// Every change since.
    events: Vec<etcd::Event>,
    leases: Vec<i64>,
}

/// What became of a member with a flipped bit.
#[derive(Debug)]
enum Fate {
    Shown(Box<Content>),
    Refused(StoreError),
    Fenced(StoreError),
}

async fn content(store: &Store) -> Result<Content, StoreError> {
    let (revision, compacted) = (store.revision(), store.compact_revision());
    let zero = Bytes::from_static(b"\0");
    let mut past = Vec::new();
    for at in compacted.max(1)..=revision {
        let request = etcd::RangeRequest { key: zero.clone(), range_end: zero.clone(), revision: at, ..Default::default() };
        past.push((at, store.range(&request)?.kvs));
    }
    let mut watch = store.watch(zero.clone(), zero, compacted + 1)?;
    let mut events = Vec::new();
    let mut upto = compacted;
    while upto < revision {
        let next = tokio::time::timeout(PATIENCE, watch.next()).await.map_err(|_| StoreError::Io("a watch hangs".into()))?;
        let batch = next.map_err(|error| match error {
            WatchError::Store(error) => error,
            other => StoreError::Io(format!("watch: {other}")),
        })?;
        upto = batch.revision;
        events.extend(batch.events.iter().cloned());
    }
    Ok(Content { revision, compacted, past, events, leases: store.leases()? })
}

fn options(seat: &mut Seat, when_empty: WhenEmpty) -> trireme_raft::StoreOptions {
    let mut options = seat.options(engines(), when_empty);
    (options.snapshot_every, options.log_kept) = (60, 10);
    options
}

/// A store with something in every kind of file, and what it shows.
async fn written(seat: &mut Seat, backup: &Path) -> Content {
    let mut expected = None;
    for life in 0..3 {
        // Restarted, because that turns what stands in the write-ahead log into tables.
        if life == 1 {
            // Damaged once before: a state that was rebuilt has a file that names its generation.
            fs::write(seat.folder.join("state/0/CURRENT"), "nonsense\n").unwrap();
        }
        let when_empty = if life == 0 { WhenEmpty::Initialize } else { WhenEmpty::Refuse };
        let store = Store::open(options(seat, when_empty)).await.unwrap();
        until(&store, "leadership", |status| status.leadership.is_some_and(|led| led.caught_up)).await;
        let lease = store.lease_grant(100_000, 0).await.unwrap();
        for i in 0..40 {
            let mut txn = put(&format!("k/{:02}", i % 25), &format!("{life}/{i}/{}", "value ".repeat(i * 3)));
            if let Some(etcd::request_op::Request::RequestPut(put)) = &mut txn.success[0].request
                && i % 7 == 0
            {
                put.lease = lease.id;
            }
            store.txn(txn, None).await.unwrap();
        }
        let delete = etcd::DeleteRangeRequest { key: "k/03".into(), ..Default::default() };
        let request = Some(etcd::request_op::Request::RequestDeleteRange(delete));
        store.txn(etcd::TxnRequest { success: vec![etcd::RequestOp { request }], ..Default::default() }, None).await.unwrap();
        if life == 1 {
            store.compact(store.revision() - 10).await.unwrap();
            store.compact_now().unwrap();
        }
        expected = Some(content(&store).await.unwrap());
        if life == 2 {
            let mut bytes = Vec::new();
            store.backup().await.unwrap().write_to(&mut bytes).await.unwrap();
            fs::write(backup, bytes).unwrap();
        }
        store.shutdown().await;
    }
    expected.unwrap()
}

/// Opens a folder, reads everything, and lets it heal as far as it can alone.
async fn fate(seat: &mut Seat) -> Fate {
    let store = match Store::open(options(seat, WhenEmpty::Refuse)).await {
        Ok(store) => store,
        Err(error) => return Fate::Refused(error),
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let fate = loop {
        let read = async {
            store.barrier().await?;
            content(&store).await
        };
        let failed = match tokio::time::timeout_at(deadline, read).await.unwrap_or_else(|_| Err(StoreError::Io("it hangs".into()))) {
            Ok(content) => break Fate::Shown(Box::new(content)),
            Err(error) => error,
        };
        let said = store.status().borrow().failure.clone();
        // There is no other member to ask: where its own snapshot and log do not lead to the state, it stays fenced.
        let helpless = said.as_ref().is_some_and(|said| said.contains("no other member") || said.contains("cannot be trusted"));
        if helpless || tokio::time::Instant::now() > deadline {
            // A snapshot that was taken before the damage was noticed holds it too. Each attempt to start from it fails, and reads wait for the next.
            let is_waiting = matches!(failed, StoreError::Io(_));
            break Fate::Fenced(match said.filter(|said| is_waiting && said.contains("Corruption")) {
                Some(said) => StoreError::Unavailable(said.to_string()),
                None => failed,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    store.shutdown().await;
    fate
}

fn files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, into);
        } else if path.metadata().unwrap().len() > 0 {
            into.push(path);
        }
    }
}

/// A file without the numbers in its name: `log/.sst`, `snapshot/data/MANIFEST`.
fn kind(base: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(base).unwrap().iter().map(|part| part.to_str().unwrap());
    // Snapshots have names of numbers in hexadecimal.
    let lettered = parts.filter(|part| part.contains('.') || part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.len() < 20);
    let plain = |part: &str| part.chars().filter(|c| !c.is_ascii_digit() && *c != '-').collect::<String>();
    lettered.map(plain).collect::<Vec<_>>().join("/")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn flip(path: &Path, rng: &mut StdRng) -> String {
    let mut bytes = fs::read(path).unwrap();
    // A segment of the log is zeros behind its last record.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
    let bit = rng.random_range(0..used * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, &bytes).unwrap();
    format!("bit {} of byte {} of {}", bit % 8, bit / 8, path.display())
}

fn tell_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        before(panic);
    }));
}

/// The column of the table that the outcome of a flip belongs to. An outcome that belongs to none fails the test.
async fn judge(seat: &mut Seat, what: &str, expected: &Content) -> usize {
    let column = match fate(seat).await {
        Fate::Shown(content) => {
            assert!(*content == *expected, "{what}: shown was {}", difference(&content, expected));
            0
        }
        Fate::Refused(error) => {
            let clear = matches!(error, StoreError::MustRejoin(_) | StoreError::Corrupt(_) | StoreError::Invalid(_));
            assert!(clear, "{what}: refused with {error:?}");
            assert!(!what.contains("/state/"), "{what}: a state can be made again, and {error:?}");
            1
        }
        Fate::Fenced(error) => {
            assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Corrupt(_)), "{what}: {error:?}");
            2
        }
    };
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "{what}, or another one: something panicked");
    // The store has been shut down, or was never open: no database writes into the folder any more.
    fs::remove_dir_all(&seat.folder).unwrap_or_else(|error| panic!("{what}: its folder is still in use: {error}"));
    column
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_is_passed_over() {
    log_to_stderr();
    tell_panics();
    let (flips, seed) = (number("TRIREME_BIT_FLIPS", 300), number("TRIREME_SEED", 1));
    let base = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let mut seat = Seat::new(&ca, "original", base.path());
    let original = seat.folder.clone();
    let expected = written(&mut seat, &base.path().join("backup")).await;

    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut found = Vec::new();
    files(&original, &mut found);
    for path in found {
        kinds.entry(kind(&original, &path)).or_default().push(path);
    }
    for needed in ["log/segments/.wal", "state/.sst", "state/MANIFEST", "state/current", "snapshot/data/.sst", "member"] {
        assert!(kinds.contains_key(needed), "no {needed} in {:?}", kinds.keys());
    }
    // The same chance for every kind, whatever its size.
    let names: Vec<String> = kinds.keys().cloned().collect();
    let attempts = (0..flips).map(|number| {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let name = &names[number as usize % names.len()];
        let path = kinds[name].choose(&mut rng).unwrap();
        let mut copied = Seat::new(&ca, "original", base.path());
        copied.identity = seat.identity.clone();
        copied.folder = base.path().join(format!("copy-{number}"));
        let (original, expected) = (&original, &expected);
        async move {
            copy(original, &copied.folder);
            let what = flip(&copied.folder.join(path.strip_prefix(original).unwrap()), &mut rng);
            let outcome = judge(&mut copied, &format!("seed {seed}, flip {number}: {what}"), expected).await;
            (name, outcome)
        }
    });
    let mut judged = futures::stream::iter(attempts).buffer_unordered(AT_ONCE);
    let mut tally: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    while let Some((name, outcome)) = judged.next().await {
        tally.entry(name.clone()).or_default()[outcome] += 1;
    }
    eprintln!("{:<24} {:>10} {:>8} {:>7}", "a bit in", "made good", "refused", "fenced");
    for (name, [shown, refused, fenced]) in &tally {
        eprintln!("{name:<24} {shown:>10} {refused:>8} {fenced:>7}");
    }
    for needed in ["log/segments/.wal", "member"] {
        assert!(tally[needed][1] > 0 || flips < 100, "a test that finds nothing in {needed} looks in the wrong place");
    }
}

fn difference(content: &Content, expected: &Content) -> String {
    if (content.revision, content.compacted) != (expected.revision, expected.compacted) {
        return format!("revision {} of {}, compacted at {}", content.revision, expected.revision, content.compacted);
    }
    let past = content.past.iter().zip(&expected.past).find(|(a, b)| a != b).map(|((at, _), _)| *at);
    format!("first other revision {past:?}; events {} of {}; leases {:?}", content.events.len(), expected.events.len(), content.leases)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_of_a_backup_is_passed_over() {
    log_to_stderr();
    let (flips, seed) = (number("TRIREME_BIT_FLIPS", 300), number("TRIREME_SEED", 1));
    let base = tempfile::tempdir().unwrap();
    let backup = base.path().join("backup");
    written(&mut Seat::new(&Ca::new(), "a", base.path()), &backup).await;
    let bytes = fs::read(&backup).unwrap();
    let read = |bytes: &[u8]| -> Result<(), StoreError> {
        let mut reader = BackupReader::open(bytes)?;
        while reader.next_records()?.is_some() {}
        reader.summary().map(drop)
    };
    read(&bytes).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..flips {
        let bit = rng.random_range(0..bytes.len() * 8);
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = read(&damaged).expect_err(&format!("bit {} of byte {} of {}", bit % 8, bit / 8, bytes.len()));
        assert!(matches!(error, StoreError::Corrupt(_) | StoreError::Invalid(_)), "{error:?}");
    }
}
