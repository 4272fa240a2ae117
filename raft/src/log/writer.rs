//! The one thread that writes the log: batches what waits, syncs once, then tells everybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};

use super::{Shared, record};
use crate::engine::{Durability, Table, WriteBatch};
use crate::error::StoreError;
use crate::mutant;
use crate::types::{LogId, TypeConfig, Vote};

/// Operations that one sync may serve.
const BATCH_OPS: usize = 1024;

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// One write, in the order openraft asked for it.
pub(super) enum Op {
    Append { records: Vec<(u64, Bytes)>, callback: IOFlushed<TypeConfig> },
    Vote { vote: Vote, reply: Reply },
    Truncate { from: u64, reply: Reply },
    Purge { upto: LogId },
    Stop,
}

/// What one sync serves.
struct Round {
    batch: WriteBatch,
    done: Vec<Done>,
    durability: Durability,
    stop: bool,
}

/// What to tell whom when a batch is on disk.
enum Done {
    Append(u64, IOFlushed<TypeConfig>),
    Vote(Vote, Reply),
    Truncate(u64, Reply),
}

/// Runs until the last handle of the log is gone.
pub(super) fn run(shared: &Shared, mut queue: mpsc::Receiver<Op>) {
    let mut failed: Option<StoreError> = None;
    let mut noted = shared.index.read().committed;
    while let Some(first) = queue.blocking_recv() {
        let mut round = gather(first, &mut queue);
        note_committed(shared, &mut round, &mut noted);
        if finish(shared, round, &mut failed) {
            return;
        }
    }
}

/// The same as a task, where the engine says how long a sync takes.
pub(super) async fn run_on_task(shared: Arc<Shared>, mut queue: mpsc::Receiver<Op>) {
    let mut failed: Option<StoreError> = None;
    let mut noted = shared.index.read().committed;
    while let Some(first) = queue.recv().await {
        let mut round = gather(first, &mut queue);
        note_committed(&shared, &mut round, &mut noted);
        if round.durability == Durability::Synced {
            tokio::time::sleep(shared.engine.sync_delay()).await;
        }
        if finish(&shared, round, &mut failed) {
            return;
        }
    }
}

/// What has queued up.
fn gather(first: Op, queue: &mut mpsc::Receiver<Op>) -> Round {
    let mut round = Round { batch: WriteBatch::new(), done: Vec::new(), durability: Durability::Buffered, stop: false };
    let mut next = Some(first);
    let mut count = 0;
    while let Some(op) = next {
        round.stop |= matches!(op, Op::Stop);
        stage(op, &mut round.batch, &mut round.done, &mut round.durability);
        count += 1;
        next = if count < BATCH_OPS && !round.stop { queue.try_recv().ok() } else { None };
    }
    round
}

/// Takes the mark of what is committed along, where it has moved.
fn note_committed(shared: &Shared, round: &mut Round, noted: &mut Option<LogId>) {
    let committed = shared.index.read().committed;
    if committed == *noted {
        return;
    }
    *noted = committed;
    match committed {
        Some(committed) => round.batch.put(Table::LogMeta, record::COMMITTED, record::encode_mark(&committed)),
        None => round.batch.delete(Table::LogMeta, record::COMMITTED),
    }
}

/// Writes a round and tells everybody. True if it was the last one.
fn finish(shared: &Shared, round: Round, failed: &mut Option<StoreError>) -> bool {
    // The first failed write poisons the log: after a failed fsync nobody knows what is on disk (design D10).
    let result = match failed.as_ref() {
        Some(error) => Err(error.clone()),
        None if round.batch.is_empty() => Ok(()),
        None => shared.engine.write(round.batch, round.durability),
    };
    if let (Err(error), None) = (&result, &failed) {
        tracing::error!(%error, "the log cannot be written; this Raft instance ends");
        *failed = Some(error.clone());
    }
    if mutant::on("sync-failure-ignored") && failed.take().is_some() {
        report(shared, round.done, &Ok(()));
        return round.stop;
    }
    report(shared, round.done, &result);
    round.stop
}

fn stage(op: Op, batch: &mut WriteBatch, done: &mut Vec<Done>, durability: &mut Durability) {
    match op {
        Op::Append { records, callback } => {
            let last = records.last().map_or(0, |(index, _)| *index);
            for (index, bytes) in records {
                batch.put(Table::Entry, &index.to_be_bytes(), bytes);
            }
            done.push(Done::Append(last, callback));
            if !mutant::on("unsynced-append") {
                *durability = Durability::Synced;
            }
        }
        Op::Vote { vote, reply } => {
            batch.put(Table::LogMeta, record::VOTE, record::encode_vote(&vote));
            done.push(Done::Vote(vote, reply));
            if !mutant::on("unsynced-vote") {
                *durability = Durability::Synced;
            }
        }
        Op::Truncate { from, reply } => {
            batch.delete_range(Table::Entry, &from.to_be_bytes(), None);
            done.push(Done::Truncate(from, reply));
            *durability = Durability::Synced;
        }
        Op::Purge { upto } => {
            // Losing a purge in a crash is harmless: the mark and the removal are lost together.
            let end = (upto.index() + 1).to_be_bytes();
            batch.delete_range(Table::Entry, &[], Some(&end));
            batch.put(Table::LogMeta, record::PURGED, record::encode_mark(&upto));
        }
        Op::Stop => {}
    }
}

fn report(shared: &Shared, done: Vec<Done>, result: &Result<(), StoreError>) {
    if result.is_ok() {
        let mut index = shared.index.write();
        for item in &done {
            match item {
                Done::Append(last, _) => index.written = index.written.max(*last),
                Done::Vote(vote, _) => index.vote = Some(*vote),
                // openraft waits for this before it appends again, so nothing newer is lowered here.
                Done::Truncate(from, _) => index.written = index.written.min(from.saturating_sub(1)),
            }
        }
        shared.synced.store(index.written, Ordering::Relaxed);
        index.shrink();
    }
    for item in done {
        match item {
            Done::Append(_, callback) => callback.io_completed(result.clone().map_err(std::io::Error::from)),
            Done::Vote(_, reply) | Done::Truncate(_, reply) => {
                // The asker may have gone; the write stands all the same.
                let _ = reply.send(result.clone());
            }
        }
    }
}
