//! Clients: what they ask, and what they make of the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use trireme_proto::etcd;
use trireme_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use trireme_proto::etcd::request_op::Request;
use trireme_proto::etcd::response_op::Response;
use trireme_raft::{Fence, Store, StoreError};

use super::board::Board;
use super::recorder::{Recorder, kv};
use super::watcher::prefix_end;
use crate::history::{Answer, Call, Kv, Transaction};

/// The registers that all clients read and write.
pub const REGISTERS: [&str; 5] = ["k/r1", "k/r2", "k/r3", "k/r4", "k/r5"];
/// History that clients leave when they compact.
const KEPT: i64 = 40;

/// One client, at one host, in one life of it.
pub struct Client {
    /// Unique; begins every value it writes.
    pub name: String,
    /// The store beside it.
    pub store: Store,
    /// Shared.
    pub board: Arc<Board>,
    /// Shared.
    pub recorder: Arc<Recorder>,
    /// Its own.
    pub rng: StdRng,
    /// Between two calls, in milliseconds, at most.
    pub pace_ms: u64,
    count: u64,
}

// === impl Client ===

impl Client {
    /// A client that has asked nothing yet.
    #[must_use]
    pub fn new(name: String, store: Store, board: Arc<Board>, recorder: Arc<Recorder>, rng: StdRng, pace_ms: u64) -> Client {
        Client { name, store, board, recorder, rng, pace_ms, count: 0 }
    }

    async fn think(&mut self) {
        let pause = self.rng.random_range(1..=self.pace_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        while !self.board.is_loaded() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn value(&mut self) -> String {
        self.count += 1;
        format!("{}-{}", self.name, self.count)
    }

    fn register(&mut self) -> String {
        (*REGISTERS.choose(&mut self.rng).unwrap_or(&REGISTERS[0])).to_owned()
    }

    /// Reads and writes registers for ever.
    pub async fn work(mut self) {
        let mut known: Vec<Kv> = Vec::new();
        loop {
            self.think().await;
            let mut transaction = Transaction::default();
            match self.rng.random_range(0..100) {
                0..35 => {
                    transaction.puts = vec![(self.register(), self.value())];
                }
                35..50 => {
                    // On what it read last, which may be old.
                    let key = self.register();
                    let modified = known.iter().find(|kv| kv.key == key).map_or(0, |kv| kv.modified);
                    transaction.expect = vec![(key.clone(), modified)];
                    transaction.puts = vec![(key, self.value())];
                }
                50..58 => {
                    transaction.puts = vec![("k/r1".to_owned(), self.value()), ("k/r5".to_owned(), self.value())];
                }
                58..62 => transaction.deletes = vec![self.register()],
                62..64 => {
                    self.compact().await;
                    continue;
                }
                _ => {
                    if let Answer::Read(_, found) = self.read("k/r").await {
                        known = found;
                    }
                    continue;
                }
            }
            if let Answer::Conflict(_, found) = self.write(transaction).await {
                known.retain(|kv| found.iter().all(|found| found.key != kv.key));
                known.extend(found);
            }
        }
    }

    /// Holds leases: a key on each, kept alive for a while, then left to end.
    pub async fn lease(mut self) {
        loop {
            self.think().await;
            let ttl = self.rng.random_range(2..6);
            let Answer::Lease(id, _) = self.grant(ttl).await else { continue };
            let key = format!("k/lease/{}-{}", self.name, self.count);
            let value = self.value();
            let transaction = Transaction { puts: vec![(key, value)], lease: id, ..Transaction::default() };
            self.write(transaction).await;
            for _ in 0..self.rng.random_range(0..4) {
                tokio::time::sleep(Duration::from_millis(700)).await;
                self.keep_alive(id).await;
            }
        }
    }

    /// Writes as a controller does: while its member leads, under that leadership's fence.
    pub async fn lead(mut self) {
        let mut status = self.store.status();
        loop {
            self.think().await;
            let leads = status.wait_for(|status| status.leadership.is_some_and(|led| led.caught_up)).await;
            let Some(fence) = leads.ok().and_then(|status| status.leadership).map(|led| led.fence) else { return };
            // The check is done; whatever happens from here on, the fence must hold.
            let pause = self.rng.random_range(0..10);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let value = self.value();
            let transaction = Transaction { puts: vec![("k/fenced".to_owned(), value)], fence: Some(fence.term), ..Transaction::default() };
            self.write_fenced(transaction, Some(fence)).await;
        }
    }

    async fn compact(&mut self) {
        let revision = self.store.revision() - KEPT;
        if revision > 1 {
            self.recorder.note(&format!("{} compacts to {revision}", self.name));
            let _ = self.store.compact(revision).await;
        }
    }

    /// A linearizable read.
    pub async fn read(&mut self, prefix: &'static str) -> Answer {
        let number = self.recorder.begin(&self.name, Call::Read(prefix.to_owned()));
        let answer = match self.store.barrier().await {
            Err(error) => Answer::Refused(error.to_string()),
            Ok(_) => match self.store.range(&range(prefix, prefix_end(prefix))) {
                Ok(response) => Answer::Read(response.header.unwrap_or_default().revision, response.kvs.iter().map(kv).collect()),
                Err(error) => Answer::Refused(error.to_string()),
            },
        };
        self.recorder.end(number, answer.clone());
        answer
    }

    /// A write.
    pub async fn write(&mut self, transaction: Transaction) -> Answer {
        self.write_fenced(transaction, None).await
    }

    /// A write under a fence.
    pub async fn write_fenced(&mut self, transaction: Transaction, fence: Option<Fence>) -> Answer {
        let number = self.recorder.begin(&self.name, Call::Write(transaction.clone()));
        let answer = match self.store.txn(request(&transaction), fence).await {
            Ok(response) => {
                let revision = response.header.unwrap_or_default().revision;
                match response.succeeded {
                    true => Answer::Written(revision),
                    false => Answer::Conflict(revision, found(&response.responses)),
                }
            }
            Err(error) => failure(&error),
        };
        self.recorder.end(number, answer.clone());
        answer
    }

    async fn grant(&mut self, ttl: i64) -> Answer {
        let number = self.recorder.begin(&self.name, Call::Grant(ttl));
        let answer = match self.store.lease_grant(ttl, 0).await {
            Ok(grant) => Answer::Lease(grant.id, grant.ttl_secs),
            Err(error) => failure(&error),
        };
        self.recorder.end(number, answer.clone());
        answer
    }

    async fn keep_alive(&mut self, id: i64) -> Answer {
        let number = self.recorder.begin(&self.name, Call::KeepAlive(id));
        let answer = match self.store.lease_keep_alive(id).await {
            Ok(grant) => Answer::Lease(grant.id, grant.ttl_secs),
            Err(error) => failure(&error),
        };
        self.recorder.end(number, answer.clone());
        answer
    }
}

fn failure(error: &StoreError) -> Answer {
    match error {
        StoreError::OutcomeUnknown { .. } | StoreError::ResultForgotten { .. } | StoreError::Io(_) | StoreError::Corrupt(_) => {
            Answer::Unknown(error.to_string())
        }
        error => Answer::Refused(error.to_string()),
    }
}

fn range(key: &str, range_end: Bytes) -> etcd::RangeRequest {
    etcd::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), range_end, ..Default::default() }
}

/// The store's form of a transaction.
#[must_use]
pub fn request(transaction: &Transaction) -> etcd::TxnRequest {
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    let op = |request| etcd::RequestOp { request: Some(request) };
    let puts = transaction.puts.iter().map(|(name, value)| {
        op(Request::RequestPut(etcd::PutRequest { key: key(name), value: key(value), lease: transaction.lease, ..Default::default() }))
    });
    let deletes = transaction
        .deletes
        .iter()
        .map(|name| op(Request::RequestDeleteRange(etcd::DeleteRangeRequest { key: key(name), ..Default::default() })));
    etcd::TxnRequest {
        compare: transaction
            .expect
            .iter()
            .map(|(name, revision)| etcd::Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key: key(name),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::ModRevision(*revision)),
            })
            .collect(),
        success: puts.chain(deletes).collect(),
        failure: transaction.expect.iter().map(|(name, _)| op(Request::RequestRange(range(name, Bytes::new())))).collect(),
    }
}

/// The keys that a transaction whose compares did not hold has read.
#[must_use]
pub fn found(responses: &[etcd::ResponseOp]) -> Vec<Kv> {
    responses
        .iter()
        .filter_map(|response| match &response.response {
            Some(Response::ResponseRange(range)) => Some(range.kvs.iter().map(kv)),
            _ => None,
        })
        .flatten()
        .collect()
}
