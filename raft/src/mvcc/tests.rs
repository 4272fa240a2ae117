//! Tests of the state machine through its public face, on the memory double and on RocksDB.

mod hash;
mod lease;
mod model;
mod prompt;
mod property;
mod records;
mod recovery;
mod txn;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::etcd;
use trireme_proto::store::command::Body;
use trireme_proto::store::command_result::Result as Outcome;
use trireme_proto::store::{Command, CommandResult, FORMAT_COMMAND};

use super::{ApplyEntry, EntryBody, EntryId, MvccOptions, StateMachine, into_outcome};
use crate::StoreError;
use crate::engine::Engine;
use crate::engine::memory::MemoryEngine;

/// What survives a crash.
trait Disk {
    fn engine(&self) -> Arc<dyn Engine>;
    /// Power is lost: whatever was not flushed is gone.
    fn crash(&mut self);
    fn open_checkpoint(&self, directory: &Path) -> Arc<dyn Engine>;
}

struct MemoryDisk(Arc<MemoryEngine>);

impl Disk for MemoryDisk {
    fn engine(&self) -> Arc<dyn Engine> {
        self.0.clone()
    }

    fn crash(&mut self) {
        self.0 = Arc::new(self.0.crash());
    }

    fn open_checkpoint(&self, directory: &Path) -> Arc<dyn Engine> {
        Arc::new(MemoryEngine::open_checkpoint(directory).unwrap())
    }
}

fn memory() -> Box<dyn Disk> {
    Box::new(MemoryDisk(Arc::new(MemoryEngine::new())))
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use std::collections::BTreeSet;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::Disk;
    use crate::engine::Engine;
    use crate::engine::rocks::{RocksEngine, RocksOptions, Role};

    pub(super) struct RocksDisk {
        home: tempfile::TempDir,
        generation: u32,
        options: RocksOptions,
        engine: Arc<RocksEngine>,
    }

    impl RocksDisk {
        pub(super) fn new() -> RocksDisk {
            let home = tempfile::tempdir().unwrap();
            let options = RocksOptions::default();
            let engine = Arc::new(RocksEngine::open(&home.path().join("0"), Role::State, &options).unwrap());
            RocksDisk { home, generation: 0, options, engine }
        }

        fn path(&self, generation: u32) -> PathBuf {
            self.home.path().join(generation.to_string())
        }
    }

    /// Copies the files of an engine that is open and may be flushing or compacting. False if they changed meanwhile, so that the copy is
    /// of no single instant. The manifest is copied first: what it names was complete by then.
    fn copied_at_one_instant(from: &Path, to: &Path) -> bool {
        let names = || -> BTreeSet<OsString> { std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
        let before = names();
        std::fs::create_dir(to).unwrap();
        let is_manifest = |name: &&OsString| name.as_encoded_bytes().starts_with(b"MANIFEST");
        let (manifests, others): (Vec<_>, Vec<_>) = before.iter().filter(|name| *name != "LOCK").partition(is_manifest);
        let copied = manifests.into_iter().chain(others).all(|name| match std::fs::copy(from.join(name), to.join(name)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            copied => copied.map(|_| true).unwrap(),
        });
        copied && names() == before
    }

    impl Disk for RocksDisk {
        fn engine(&self) -> Arc<dyn Engine> {
            self.engine.clone()
        }

        fn crash(&mut self) {
            let (old, next) = (self.path(self.generation), self.path(self.generation + 1));
            while !copied_at_one_instant(&old, &next) {
                std::fs::remove_dir_all(&next).unwrap();
            }
            self.engine = Arc::new(RocksEngine::open(&next, Role::State, &self.options).unwrap());
            self.generation += 1;
        }

        fn open_checkpoint(&self, directory: &Path) -> Arc<dyn Engine> {
            Arc::new(RocksEngine::open(directory, Role::State, &self.options).unwrap())
        }
    }
}

/// Every kind of disk there is in this build.
fn disks() -> Vec<Box<dyn Disk>> {
    vec![
        memory(),
        #[cfg(feature = "rocksdb")]
        Box::new(rocks::RocksDisk::new()),
    ]
}

/// Current records in memory: fewer than a test has keys, so that some are and some are not.
const LATEST_BYTES: usize = 2200;

/// A state machine and the log that feeds it.
struct Machine {
    disk: Box<dyn Disk>,
    state: StateMachine,
    log: Vec<ApplyEntry>,
    term: u64,
    start: Instant,
    now: Instant,
    options: MvccOptions,
}

impl Machine {
    fn new(disk: Box<dyn Disk>) -> Machine {
        Machine::with_ring(disk, 4 << 20)
    }

    fn with_ring(disk: Box<dyn Disk>, watch_ring_bytes: usize) -> Machine {
        let now = Instant::now();
        let options = MvccOptions { watch_ring_bytes, latest_bytes: LATEST_BYTES };
        let state = StateMachine::open(disk.engine(), &options, now).unwrap();
        Machine { disk, state, log: Vec::new(), term: 1, start: now, now, options }
    }

    fn elapse(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn apply(&mut self, body: EntryBody) -> Result<CommandResult, StoreError> {
        let id = EntryId { term: self.term, index: self.log.len() as u64 + 1 };
        let entry = ApplyEntry { id, body };
        self.log.push(entry.clone());
        let mut results = self.state.apply_batch(&[entry], self.now)?;
        Ok(results.remove(0))
    }

    fn command(&mut self, command: &Command) -> Result<CommandResult, StoreError> {
        let result = self.apply(EntryBody::Command(command.encode_to_vec().into()))?;
        into_outcome(result)
    }

    fn run(&mut self, body: Body) -> Result<CommandResult, StoreError> {
        self.command(&command(body))
    }

    fn txn(&mut self, txn: etcd::TxnRequest) -> Result<etcd::TxnResponse, StoreError> {
        let result = self.run(Body::Txn(txn))?;
        match result.result {
            Some(Outcome::Txn(response)) => Ok(response),
            other => panic!("a transaction was answered with {other:?}"),
        }
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        self.txn(success([put(key, value)])).unwrap().header.unwrap().revision
    }

    fn delete(&mut self, key: &str, range_end: &str) -> etcd::TxnResponse {
        self.txn(success([delete(key, range_end)])).unwrap()
    }

    fn range(&self, key: &str, range_end: &str, revision: i64) -> Result<etcd::RangeResponse, StoreError> {
        self.state.range(&etcd::RangeRequest { key: bytes(key), range_end: bytes(range_end), revision, ..Default::default() })
    }

    fn get(&self, key: &str) -> Option<etcd::KeyValue> {
        self.range(key, "", 0).unwrap().kvs.pop()
    }

    /// Loses power, starts again, and replays the log as Raft would.
    fn crash_and_replay(&mut self) {
        self.disk.crash();
        self.state = StateMachine::open(self.disk.engine(), &self.options, self.now).unwrap();
        let from = self.state.info().last_applied.map_or(0, |id| id.index as usize);
        if from < self.log.len() {
            self.state.apply_batch(&self.log[from..], self.now).unwrap();
        }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn command(body: Body) -> Command {
    Command { format: FORMAT_COMMAND, body: Some(body), ..Default::default() }
}

fn op(request: etcd::request_op::Request) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

fn put(key: &str, value: &str) -> etcd::RequestOp {
    op(etcd::request_op::Request::RequestPut(etcd::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }))
}

fn delete(key: &str, range_end: &str) -> etcd::RequestOp {
    let request = etcd::DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: true };
    op(etcd::request_op::Request::RequestDeleteRange(request))
}

fn read(key: &str, range_end: &str) -> etcd::RequestOp {
    let request = etcd::RangeRequest { key: bytes(key), range_end: bytes(range_end), ..Default::default() };
    op(etcd::request_op::Request::RequestRange(request))
}

fn nested(txn: etcd::TxnRequest) -> etcd::RequestOp {
    op(etcd::request_op::Request::RequestTxn(txn))
}

fn success<const N: usize>(ops: [etcd::RequestOp; N]) -> etcd::TxnRequest {
    etcd::TxnRequest { success: ops.into(), ..Default::default() }
}
