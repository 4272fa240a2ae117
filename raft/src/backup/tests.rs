//! Archives of random states, whole and damaged, on every engine.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use trireme_proto::etcd::request_op::Request;
use trireme_proto::etcd::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use trireme_proto::store::command::Body;
use trireme_proto::store::{self, Command, FORMAT_COMMAND, LeaseCheckpointCommand, LeaseGrantCommand, SealedKey, SealedPutCommand};

use super::*;
use crate::MemoryEngines;
use crate::engine::Engine;
use crate::mvcc::{ApplyEntry, EntryBody, EntryId, MvccOptions, RESET_REVISION_STEP, StateInfo, StateMachine};
use crate::store::options::Engines;

struct State {
    engine: Arc<dyn Engine>,
    machine: StateMachine,
    index: u64,
}

impl State {
    fn new(engine: Arc<dyn Engine>) -> State {
        let machine = StateMachine::open(engine.clone(), &MvccOptions::default(), Instant::now()).unwrap();
        State { engine, machine, index: 0 }
    }

    fn run(&mut self, body: Body) {
        self.index += 1;
        let command = Command { format: FORMAT_COMMAND, body: Some(body), ..Command::default() };
        let entry = ApplyEntry { id: EntryId { term: 3, index: self.index }, body: EntryBody::Command(command.encode_to_vec().into()) };
        self.machine.apply_batch(&[entry], Instant::now()).unwrap();
    }

    fn put(&mut self, key: &str, value: Bytes, lease: i64) {
        self.txn(Request::RequestPut(PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value, lease, ..PutRequest::default() }));
    }

    fn txn(&mut self, request: Request) {
        self.run(Body::Txn(TxnRequest { success: vec![RequestOp { request: Some(request) }], ..TxnRequest::default() }));
    }
}

/// Every engine of this build, each with the folder that it needs.
fn every_engine() -> Vec<(tempfile::TempDir, Arc<dyn Engines>)> {
    let engines: Vec<Arc<dyn Engines>> = vec![
        Arc::new(MemoryEngines::new()),
        #[cfg(feature = "rocksdb")]
        Arc::new(crate::DiskEngines),
    ];
    engines.into_iter().map(|engines| (tempfile::tempdir().unwrap(), engines)).collect()
}

async fn archive(engine: &Arc<dyn Engine>) -> (Vec<u8>, BackupSummary) {
    let origin = Origin { version: "v1".into(), member_name: "a".into(), notes: Vec::new() };
    let mut bytes = Vec::new();
    let summary = stream(engine.clone(), origin).await.unwrap().write_to(&mut bytes).await.unwrap();
    (bytes, summary)
}

fn read_all(bytes: &[u8]) -> Result<BackupSummary, StoreError> {
    let mut reader = BackupReader::open(bytes)?;
    while reader.next_records()?.is_some() {}
    reader.summary()
}

fn all_keys(machine: &StateMachine) -> Vec<trireme_proto::etcd::KeyValue> {
    let zero = Bytes::from_static(b"\0");
    machine.range(&RangeRequest { key: zero.clone(), range_end: zero, ..RangeRequest::default() }).unwrap().kvs
}

fn open_restored(engines: &dyn Engines, directory: &std::path::Path) -> (StateMachine, StateInfo) {
    let machine =
        StateMachine::open(engines.open_state(&directory.join("state/0")).unwrap(), &MvccOptions::default(), Instant::now()).unwrap();
    let info = machine.info();
    (machine, info)
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Vec<u8>, i64),
    Delete(String),
    Grant(i64),
    Seal(String),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop_oneof![Just("a"), Just("a\0"), Just("a\0b"), Just("ab"), Just("b"), Just("\u{1}")].prop_map(str::to_owned);
    let value = prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..40), 1 => Just(vec![7u8; CHUNK_BYTES / 2 + 1])];
    prop_oneof![
        6 => (key(), value, 0i64..3).prop_map(|(key, value, lease)| Step::Put(key, value, lease)),
        2 => key().prop_map(Step::Delete),
        1 => (1i64..3).prop_map(Step::Grant),
        1 => key().prop_map(Step::Seal),
    ]
}

fn perform(state: &mut State, step: Step) {
    match step {
        Step::Put(key, value, lease) => state.put(&key, value.into(), lease),
        Step::Delete(key) => {
            state.txn(Request::RequestDeleteRange(DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() }))
        }
        Step::Grant(id) => state.run(Body::LeaseGrant(LeaseGrantCommand { id, ttl_secs: 60 * id })),
        Step::Seal(name) => {
            let key = SealedKey { ciphertext: "sealed".into(), ..SealedKey::default() };
            state.run(Body::SealedPut(SealedPutCommand { name, key: Some(key), if_version: 0 }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn what_is_restored_is_what_was_there(steps in prop::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (home, engines) in every_engine() {
            let mut state = State::new(engines.open_state(&home.path().join("origin")).unwrap());
            steps.iter().cloned().for_each(|step| perform(&mut state, step));
            let (bytes, written) = runtime.block_on(archive(&state.engine));
            prop_assert_eq!(&read_all(&bytes).unwrap(), &written);
            prop_assert_eq!(&verify(BackupReader::open(bytes.as_slice()).unwrap(), engines.as_ref(), &home.path().join("proof")).unwrap(), &written);

            let target = home.path().join("db");
            let restored = restore(BackupReader::open(bytes.as_slice()).unwrap(), engines.as_ref(), &target).unwrap();
            let (machine, info) = open_restored(engines.as_ref(), &target);
            prop_assert_eq!(all_keys(&machine), all_keys(&state.machine));
            prop_assert_eq!(machine.leases().unwrap(), state.machine.leases().unwrap());
            for id in state.machine.leases().unwrap() {
                let keys = |machine: &StateMachine| machine.lease(id, Instant::now()).unwrap().unwrap().keys;
                prop_assert_eq!(keys(&machine), keys(&state.machine));
            }
            prop_assert_eq!(machine.sealed("a").unwrap(), state.machine.sealed("a").unwrap());
            prop_assert_eq!(info.revision, state.machine.revision() + RESET_REVISION_STEP);
            prop_assert_eq!(info.compact_revision, info.revision);
            prop_assert_eq!(info.cluster_id, restored.cluster.cluster_id);
            prop_assert_eq!(info.last_applied, Some(EntryId { term: if state.index == 0 { 1 } else { 4 }, index: state.index + 1 }));
        }
    }
}

/// An archive of a few frames.
async fn sample() -> Vec<u8> {
    let engine: Arc<dyn Engine> = Arc::new(crate::engine::memory::MemoryEngine::new());
    let mut state = State::new(engine);
    for n in 0..40 {
        state.put(&format!("key/{n}"), vec![n; 40].into(), 0);
    }
    let (bytes, _) = archive(&state.engine).await;
    bytes
}

#[tokio::test]
async fn an_archive_cut_anywhere_is_refused() {
    let bytes = sample().await;
    read_all(&bytes).unwrap();
    for length in 0..bytes.len() {
        let error = read_all(&bytes[..length]).unwrap_err().to_string();
        assert!(error.contains("ends in the middle") || error.contains("shorter than one can be"), "{length}: {error}");
    }
}

#[tokio::test]
async fn an_archive_with_any_bit_changed_is_refused() {
    let bytes = sample().await;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(read_all(&changed).is_err(), "byte {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read_all(&longer).unwrap_err().to_string().contains("follows its end"));
}

#[tokio::test]
async fn an_archive_without_one_of_its_chunks_is_refused() {
    let engine: Arc<dyn Engine> = Arc::new(crate::engine::memory::MemoryEngine::new());
    let mut state = State::new(engine);
    for n in 0..4 {
        state.put(&format!("key/{n}"), vec![n; CHUNK_BYTES].into(), 0);
    }
    let (bytes, _) = archive(&state.engine).await;
    // The second frame after the header, whole with its checksum.
    let frame_at = |at: usize| FRAME_HEAD_BYTES + u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let first = MAGIC.len() + frame_at(MAGIC.len());
    let missing = [&bytes[..first], &bytes[first + frame_at(first)..]].concat();
    assert!(read_all(&missing).unwrap_err().to_string().contains("does not match its checksum"));
}

#[tokio::test]
async fn a_damaged_archive_leaves_no_store_behind() {
    for (home, engines) in every_engine() {
        let bytes = sample().await;
        let target = home.path().join("db");
        let cut = BackupReader::open(&bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(restore(cut, engines.as_ref(), &target), Err(StoreError::Corrupt(_))));
        assert!(!target.join("member").exists());
    }
}

#[tokio::test]
async fn an_archive_of_a_newer_release_is_refused_by_name() {
    let header = BackupHeader { format: store::FORMAT_BACKUP + 1, ..BackupHeader::default() };
    let bytes = [MAGIC.as_slice(), &encode(&frame(Frame::Header(header))).unwrap()].concat();
    assert!(BackupReader::open(bytes.as_slice()).err().unwrap().to_string().contains("format 2"));
    assert!(BackupReader::open(b"PK\x03\x04 no snapshot".as_slice()).err().unwrap().to_string().contains("not a snapshot of Trireme"));
}

#[tokio::test]
async fn a_backup_shows_one_moment_and_holds_up_no_write() {
    for (home, engines) in every_engine() {
        let mut state = State::new(engines.open_state(&home.path().join("origin")).unwrap());
        for n in 0..16 {
            state.put(&format!("key/{n}"), vec![n; CHUNK_BYTES].into(), 0);
        }
        let revision = state.machine.revision();
        let mut backup = stream(state.engine.clone(), Origin::default()).await.unwrap();
        let mut bytes = backup.next().await.unwrap().unwrap().to_vec();
        // The consumer takes no more yet: only a few frames are made ahead, and writes go on.
        for n in 0..16 {
            state.put(&format!("key/{n}"), Bytes::from_static(b"later"), 0);
        }
        while state.machine.compact_step(1000).unwrap() {}
        while let Some(piece) = backup.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let summary = read_all(&bytes).unwrap();
        assert_eq!((summary.revision, summary.keys), (revision, 16));
        assert!(bytes.len() > 16 * CHUNK_BYTES, "the values of that moment");
    }
}

#[tokio::test]
async fn leases_begin_anew() {
    for (home, engines) in every_engine() {
        let mut state = State::new(engines.open_state(&home.path().join("origin")).unwrap());
        state.run(Body::LeaseGrant(LeaseGrantCommand { id: 7, ttl_secs: 600 }));
        let entry = store::lease_checkpoint_command::Entry { id: 7, remaining_ttl_secs: 5, generation: 1 };
        state.run(Body::LeaseCheckpoint(LeaseCheckpointCommand { leases: vec![entry] }));
        let (bytes, _) = archive(&state.engine).await;
        let target = home.path().join("db");
        restore(BackupReader::open(bytes.as_slice()).unwrap(), engines.as_ref(), &target).unwrap();
        let (machine, _) = open_restored(engines.as_ref(), &target);
        let lease = machine.lease(7, Instant::now()).unwrap().unwrap();
        assert!(lease.remaining_secs > 590, "{lease:?}");
    }
}
